"""The views `deduplication_audit` and `offset_coverage`."""

from __future__ import annotations

from typing import Final

from transforms.model.tables import (
    AUDIT_VIEW,
    COVERAGE_VIEW,
    DUPLICATES,
    GAPS,
    PAYMENTS,
    ROW_TABLES,
)

_COORDINATES: Final = " UNION ALL ".join(
    f"SELECT kafka_topic, kafka_partition, kafka_offset FROM {table}" for table in ROW_TABLES
)

_VIEWS: Final = (
    f"""CREATE OR REPLACE VIEW {AUDIT_VIEW} AS
    SELECT p.transaction_id, p.event_time AS first_occurrence_time, COALESCE(d.copies, 0) AS dup_count
    FROM {PAYMENTS} p
    LEFT JOIN (SELECT transaction_id, COUNT(*) AS copies FROM {DUPLICATES} GROUP BY transaction_id) d
    ON p.transaction_id = d.transaction_id""",
    f"""CREATE OR REPLACE VIEW {COVERAGE_VIEW} AS
    WITH records AS (
        SELECT kafka_topic, kafka_partition, kafka_offset, COUNT(*) AS copies FROM ({_COORDINATES}) GROUP BY ALL
    ), spans AS (
        SELECT kafka_topic, kafka_partition, kafka_offset AS first_offset, kafka_offset AS last_offset, copies, 0 AS gap_offsets FROM records
        UNION ALL
        SELECT kafka_topic, kafka_partition, first_offset, last_offset, 0, last_offset - first_offset + 1 FROM {GAPS}
    )
    SELECT kafka_topic, kafka_partition, MIN(first_offset) AS first_offset, MAX(last_offset) AS last_offset,
        SUM(copies)::BIGINT AS rows, SUM(gap_offsets)::BIGINT AS gap_offsets, SUM(GREATEST(copies - 1, 0))::BIGINT AS repeated,
        (MAX(last_offset) - MIN(first_offset) + 1 - COUNT(*) FILTER (copies > 0) - SUM(gap_offsets))::BIGINT AS missing
    FROM spans GROUP BY kafka_topic, kafka_partition""",
)
