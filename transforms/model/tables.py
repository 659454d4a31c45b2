"""The tables of the guarantee: names and columns, the same for every destination.

Column types are Arrow types; a destination maps them to its own. Times are UTC microseconds, money
is decimal128(38, 9), which is BigQuery's NUMERIC
(https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types).
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

PAYMENTS: Final = "payment_transactions"
DUPLICATES: Final = "duplicate_transactions"
REJECTED: Final = "rejected_records"
GAPS: Final = "offset_gaps"
TOTALS: Final = "control_totals"
RUNS: Final = "pipeline_runs"

ROW_TABLES: Final = (PAYMENTS, DUPLICATES, REJECTED)
"""Every Kafka record that was read has exactly one row in exactly one of these."""

COMMIT_ORDER: Final = (PAYMENTS, DUPLICATES, REJECTED, GAPS, TOTALS)
"""The order of step 5 of a run.

Payments come first, so that no duplicate is visible without its payment; totals last, so that they
are short by exactly the run's rows while it is not complete (pipeline/run/repair.py).
"""

DELETED: Final = "deleted"
"""Cause of a gap: Kafka had deleted the offsets before they were read, and that was accepted."""

PRUNED_GAP: Final = "pruned"
"""Cause of a gap: `prune` has removed the rows and gaps that were there."""

NO_RECORD: Final = "no_record"
"""Cause of a gap: transaction markers, aborted or compacted records."""

AUDIT_VIEW: Final = "deduplication_audit"
COVERAGE_VIEW: Final = "offset_coverage"

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
NUMERIC: Final = pa.decimal128(38, 9)

SOURCE_COLUMNS: Final = (
    pa.field("kafka_topic", pa.string(), nullable=False),
    pa.field("kafka_partition", pa.int32(), nullable=False),
    pa.field("kafka_offset", pa.int64(), nullable=False),
    pa.field("kafka_timestamp", TIMESTAMP),
)
"""What Kafka says of a record."""

KAFKA_COLUMNS: Final = (*SOURCE_COLUMNS, pa.field("ingest_time", TIMESTAMP, nullable=False))
"""The last columns of every row of ROW_TABLES. `ingest_time` is added by the dedup step."""

REJECTED_SCHEMA: Final = pa.schema(
    [
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("payload", pa.binary()),
        pa.field("transaction_id", pa.string()),
        pa.field("event_time", TIMESTAMP),
        *KAFKA_COLUMNS,
    ]
)

GAPS_SCHEMA: Final = pa.schema(
    [
        *SOURCE_COLUMNS[:2],
        pa.field("first_offset", pa.int64(), nullable=False),
        pa.field("last_offset", pa.int64(), nullable=False),
        pa.field("cause", pa.string(), nullable=False),
    ]
)

TOTALS_SCHEMA: Final = pa.schema(
    [
        pa.field("window_start", TIMESTAMP, nullable=False),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("currency", pa.string()),
        pa.field("records", pa.int64(), nullable=False),
        pa.field("amount", NUMERIC),
        pa.field("checksum", pa.int64(), nullable=False),
    ]
)

STREAM_POSITION: Final = (
    pa.field("stream_epoch", pa.int64()),
    pa.field("stream_offset", pa.int64()),
)
"""Which append of streaming wrote a row of `control_totals`; NULL in bounded runs.

Keys of totals repeat: a late record counts in a window that was written long ago. These columns say
which rows are younger than a restored state.
"""

TOTALS_TABLE_SCHEMA: Final = pa.schema([*TOTALS_SCHEMA, *STREAM_POSITION])


def payment_columns(fields: list[pa.Field]) -> pa.Schema:
    """Columns of `payment_transactions` and `duplicate_transactions`.

    fields: those of the payment schema.
    """
    return pa.schema([*fields, pa.field("unknown_fields", pa.string()), *KAFKA_COLUMNS])


EARLIEST_US: Final = -62_135_596_800_000_000
LATEST_US: Final = 253_402_300_799_999_999
"""0001-01-01T00:00:00Z and 9999-12-31T23:59:59.999999Z: the bounds of BigQuery's TIMESTAMP."""
