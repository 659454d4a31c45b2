"""A record as a row of `rejected_records`, and every reason for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from transforms.model.tables import REJECTED_SCHEMA, SOURCE_COLUMNS

Reason = str
"""One of REASONS. Stored in the column `reason`, so no value may ever change."""

NULL_VALUE: Final[Reason] = "null_value"
TOO_LARGE: Final[Reason] = "too_large"
INVALID_JSON: Final[Reason] = "invalid_json"
MISSING_FIELD: Final[Reason] = "missing_field"
WRONG_TYPE: Final[Reason] = "wrong_type"
OUT_OF_RANGE: Final[Reason] = "out_of_range"
UNKNOWN_FIELD: Final[Reason] = "unknown_field"
FUTURE: Final[Reason] = "future_event_time"
LATE: Final[Reason] = "late"
REFUSED: Final[Reason] = "refused_by_destination"

REASONS: Final = (
    NULL_VALUE,
    TOO_LARGE,
    INVALID_JSON,
    MISSING_FIELD,
    WRONG_TYPE,
    OUT_OF_RANGE,
    UNKNOWN_FIELD,
    FUTURE,
    LATE,
    REFUSED,
)
"""Of several that apply to one record, the first counts."""

REJECTED_COLUMNS: Final = pa.schema(
    [field for field in REJECTED_SCHEMA if field.name != "ingest_time"]
)
"""Columns of a rejected row before the dedup step adds `ingest_time`."""

NONE_REJECTED: Final = pa.RecordBatch.from_pylist([], schema=REJECTED_COLUMNS)


def rejected_rows(
    payments: pa.RecordBatch,
    reasons: Sequence[Reason],
    details: Sequence[str],
    payloads: Sequence[bytes | None],
) -> pa.RecordBatch:
    """Decoded payments as rows of `rejected_records`, without `ingest_time`."""
    kept = ["transaction_id", "event_time", *(field.name for field in SOURCE_COLUMNS)]
    columns = {
        "reason": pa.array(reasons, pa.string()),
        "detail": pa.array(details, pa.string()),
        "payload": pa.array(payloads, pa.binary()),
        **{name: payments.column(name) for name in kept},
    }
    return pa.RecordBatch.from_arrays(
        [columns[name] for name in REJECTED_COLUMNS.names],
        schema=REJECTED_COLUMNS,
    )


def original_payload(value: bytes | None, max_record_bytes: int) -> bytes | None:
    """The value, cut to its first `max_record_bytes` bytes; None for Kafka's null value."""
    return value if value is None or len(value) <= max_record_bytes else value[:max_record_bytes]
