"""A record as a row of `rejected_records`, and the reasons for one."""

from __future__ import annotations

import pyarrow as pa

from transforms.model.tables import KAFKA_COLUMNS, REJECTED_SCHEMA

FUTURE = "future_event_time"
LATE = "late"
REFUSED = "refused_by_destination"

_REJECTED_COLUMNS = pa.schema([field for field in REJECTED_SCHEMA if field.name != "ingest_time"])
_KAFKA_NAMES = [field.name for field in KAFKA_COLUMNS if field.name != "ingest_time"]


def rejected_rows(
    payments: pa.RecordBatch, reasons: list[str], details: list[str], payloads: list[bytes | None]
) -> pa.RecordBatch:
    """Decoded payments as rows of `rejected_records`, without `ingest_time`."""
    columns = {
        "reason": pa.array(reasons, pa.string()),
        "detail": pa.array(details, pa.string()),
        "payload": pa.array(payloads, pa.binary()),
        **{name: payments.column(name) for name in ["transaction_id", "event_time", *_KAFKA_NAMES]},
    }
    return pa.RecordBatch.from_arrays(
        [columns[field.name] for field in _REJECTED_COLUMNS], schema=_REJECTED_COLUMNS
    )


def original_payload(value: bytes | None, max_record_bytes: int) -> bytes | None:
    """`value`, or its first `max_record_bytes` bytes where it is longer; None for Kafka's null
    value.
    """
    return value if value is None or len(value) <= max_record_bytes else value[:max_record_bytes]
