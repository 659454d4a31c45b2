"""The original bytes of a record that is rejected."""

from __future__ import annotations


def original_payload(value: bytes | None, max_record_bytes: int) -> bytes | None:
    """`value`, or its first `max_record_bytes` bytes where it is longer; None for Kafka's null value."""
    return value if value is None or len(value) <= max_record_bytes else value[:max_record_bytes]
