"""The text of a row that is hashed, and its hash: transforms/model/fingerprints.py in SQL."""

from __future__ import annotations

from typing import Final

from transforms.destinations.sql.dialect import Dialect
from transforms.model.fingerprints import FINGERPRINT_BYTES

COORDINATE_TEXT: Final = (
    "CONCAT(r.kafka_topic, ':', CAST(r.kafka_partition AS STRING),"
    " ':', CAST(r.kafka_offset AS STRING))"
)
"""Of a row with the alias r: what is hashed where no id could be read."""


def first_digits(digest: str, digits: int) -> str:
    """The first hexadecimal digits of a digest as INT64; at most 15, so that the sign stays."""
    return f"CAST(CONCAT('0x', SUBSTR({digest}, 1, {digits})) AS INT64)"


def shard_number(dialect: Dialect, digest: str) -> str:
    """The shard of a digest: its first 16 bits, scaled to the parameter `shards`."""
    return f"({first_digits(digest, 4)} * {dialect.parameter('shards')}) >> 16"


def fingerprint(dialect: Dialect, digest: str) -> str:
    """The first bytes of a digest."""
    return dialect.unhex(f"SUBSTR({digest}, 1, {2 * FINGERPRINT_BYTES})")
