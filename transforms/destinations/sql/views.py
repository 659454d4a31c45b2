"""The views `deduplication_audit` and `offset_coverage`."""

from __future__ import annotations

from transforms.destinations.sql.coordinates import rows_of_tables
from transforms.destinations.sql.dialect import Dialect
from transforms.model.tables import AUDIT_VIEW, COVERAGE_VIEW, DUPLICATES, GAPS, PAYMENTS


def views(dialect: Dialect) -> dict[str, str]:
    """Name of the view -> its query."""
    table, partition = dialect.table, "kafka_topic, kafka_partition"
    return {
        AUDIT_VIEW: f"""
SELECT p.transaction_id, p.event_time AS first_occurrence_time, COALESCE(d.copies, 0) AS dup_count
FROM {dialect.aliased(PAYMENTS, "p")} LEFT JOIN (
    SELECT transaction_id, COUNT(*) AS copies FROM {table(DUPLICATES)} GROUP BY transaction_id
) AS d ON p.transaction_id = d.transaction_id""",
        COVERAGE_VIEW: f"""
WITH records AS (
    SELECT {partition}, kafka_offset, COUNT(*) AS copies FROM ({rows_of_tables(dialect)})
    GROUP BY {partition}, kafka_offset
), spans AS (
    SELECT {partition}, kafka_offset AS first_offset, kafka_offset AS last_offset, copies,
        0 AS gap_offsets
    FROM records
    UNION ALL
    SELECT {partition}, first_offset, last_offset, 0, last_offset - first_offset + 1
    FROM {table(GAPS)}
)
SELECT {partition}, MIN(first_offset) AS first_offset, MAX(last_offset) AS last_offset,
    CAST(SUM(copies) AS INT64) AS {dialect.quoted("rows")},
    CAST(SUM(gap_offsets) AS INT64) AS gap_offsets,
    CAST(SUM(GREATEST(copies - 1, 0)) AS INT64) AS repeated,
    CAST(MAX(last_offset) - MIN(first_offset) + 1 - COUNTIF(copies > 0) - SUM(gap_offsets) AS INT64)
        AS missing
FROM spans GROUP BY {partition}""",
    }
