"""The views in GoogleSQL; the same as in DuckDB."""

from __future__ import annotations

from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.model.tables import (
    AUDIT_VIEW,
    COVERAGE_VIEW,
    DUPLICATES,
    GAPS,
    PAYMENTS,
    ROW_TABLES,
)


def views(settings: BigQuerySettings) -> dict[str, str]:
    """Name -> SELECT."""
    coordinates = " UNION ALL ".join(
        f"SELECT kafka_topic, kafka_partition, kafka_offset FROM {settings.table(table)}"
        for table in ROW_TABLES
    )
    return {
        AUDIT_VIEW: f"""SELECT p.transaction_id, p.event_time AS first_occurrence_time, IFNULL(d.copies, 0) AS dup_count
FROM {settings.table(PAYMENTS)} AS p
LEFT JOIN (SELECT transaction_id, COUNT(*) AS copies FROM {settings.table(DUPLICATES)} GROUP BY transaction_id) AS d
ON p.transaction_id = d.transaction_id""",
        COVERAGE_VIEW: f"""WITH records AS (
    SELECT kafka_topic, kafka_partition, kafka_offset, COUNT(*) AS copies FROM ({coordinates}) GROUP BY kafka_topic, kafka_partition, kafka_offset
), spans AS (
    SELECT kafka_topic, kafka_partition, kafka_offset AS first_offset, kafka_offset AS last_offset, copies, 0 AS gap_offsets FROM records
    UNION ALL
    SELECT kafka_topic, kafka_partition, first_offset, last_offset, 0, last_offset - first_offset + 1 FROM {settings.table(GAPS)}
)
SELECT kafka_topic, kafka_partition, MIN(first_offset) AS first_offset, MAX(last_offset) AS last_offset,
    SUM(copies) AS `rows`, SUM(gap_offsets) AS gap_offsets, SUM(GREATEST(copies - 1, 0)) AS repeated,
    MAX(last_offset) - MIN(first_offset) + 1 - COUNTIF(copies > 0) - SUM(gap_offsets) AS missing
FROM spans GROUP BY kafka_topic, kafka_partition""",
    }
