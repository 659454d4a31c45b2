"""The questions that `check` asks, in DuckDB's SQL. Each answer holds the rows that prove a failure, or the figures to compare."""

from __future__ import annotations

from typing import Final

from transforms.buckets import BUCKET_US
from transforms.destinations.duckdb_totals import totals_of_rows
from transforms.run_record import ABORTED, COMMITTED, PREPARED
from transforms.tables import AUDIT_VIEW, DUPLICATES, GAPS, PAYMENTS, ROW_TABLES, RUNS, TOTALS


def _ranges(status: str) -> str:
    return f"""SELECT run_id, part.topic AS kafka_topic, part."partition" AS kafka_partition, part.from_offset, part.to_offset
        FROM (SELECT run_id, unnest(partitions) AS part FROM {RUNS} WHERE status = '{status}') WHERE part.to_offset > part.from_offset"""


def _rows(columns: str) -> str:
    """All rows of the three tables, with the name of the table."""
    return " UNION ALL ".join(f"SELECT '{table}' AS table_name, {columns} FROM {table}" for table in ROW_TABLES)


def _not_in_flight(table: str) -> str:
    return f"""(SELECT * FROM {table} r WHERE NOT EXISTS (SELECT 1 FROM ({_ranges(PREPARED)}) f WHERE f.kafka_topic = r.kafka_topic
        AND f.kafka_partition = r.kafka_partition AND r.kafka_offset >= f.from_offset AND r.kafka_offset < f.to_offset))"""


DISTINCT_IDS: Final = (
    f"SELECT COUNT(DISTINCT transaction_id) AS uniq, COUNT(*) AS total FROM {PAYMENTS}"
    " WHERE $date IS NULL OR DATE(event_time) = $date::DATE"
)
DUPLICATE_RATE: Final = (
    f"SELECT AVG(dup_count) AS average FROM {AUDIT_VIEW} WHERE $date IS NULL OR DATE(first_occurrence_time) = $date::DATE"
)
PARTITIONS: Final = (
    f"SELECT DISTINCT kafka_topic, kafka_partition FROM ({_rows('kafka_topic, kafka_partition')}"
    f" UNION ALL SELECT '{GAPS}', kafka_topic, kafka_partition FROM {GAPS}) ORDER BY ALL"
)
OFFSETS: Final = (
    f"SELECT kafka_offset FROM ({_rows('kafka_topic, kafka_partition, kafka_offset')})"
    " WHERE kafka_topic = $topic AND kafka_partition = $partition ORDER BY kafka_offset"
)
GAPS_OF_PARTITION: Final = (
    f"SELECT first_offset, last_offset FROM {GAPS} WHERE kafka_topic = $topic AND kafka_partition = $partition ORDER BY first_offset"
)

_FLOOR_BUCKET: Final = f"CAST(floor(epoch_us(event_time) / {BUCKET_US}) AS BIGINT)"

REPEATS: Final = f"""
WITH RECURSIVE chain AS (
    SELECT run_id, partitions, lowest_watermark, settings, status, 0 AS run FROM {RUNS} WHERE predecessor IS NULL
    UNION ALL SELECT r.run_id, r.partitions, r.lowest_watermark, r.settings, r.status, chain.run + 1
    FROM {RUNS} r JOIN chain ON r.predecessor = chain.run_id
), ranges AS (
    SELECT run, part.topic AS kafka_topic, part."partition" AS kafka_partition, part.from_offset, part.to_offset
    FROM (SELECT run, unnest(partitions) AS part FROM chain WHERE status <> '{ABORTED}') WHERE part.to_offset > part.from_offset
), bounds AS (
    SELECT run, lowest_watermark AS watermark, (settings->>'extra_retention_us')::BIGINT AS extra_retention FROM chain
), repeated AS (
    SELECT transaction_id FROM {PAYMENTS} GROUP BY transaction_id HAVING COUNT(*) > 1
), copies AS (
    SELECT 1 AS paid, transaction_id, event_time, kafka_topic, kafka_partition, kafka_offset FROM {PAYMENTS}
    WHERE transaction_id IN (FROM repeated)
    UNION ALL
    SELECT 0, transaction_id, event_time, kafka_topic, kafka_partition, kafka_offset FROM {DUPLICATES}
    WHERE transaction_id IN (FROM repeated)
), placed AS (
    SELECT c.*, ranges.run FROM copies c ASOF LEFT JOIN ranges
    ON c.kafka_topic = ranges.kafka_topic AND c.kafka_partition = ranges.kafka_partition AND c.kafka_offset >= ranges.from_offset
), seen AS (
    SELECT *,
        MAX(event_time) OVER earlier AS latest_before,
        SUM(paid) OVER earlier AS payments_before,
        SUM(paid) OVER (PARTITION BY transaction_id, run) AS payments_in_run
    FROM placed WINDOW earlier AS (PARTITION BY transaction_id ORDER BY run RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT s.transaction_id, s.kafka_topic, s.kafka_partition, s.kafka_offset, s.event_time,
    (epoch_us(s.event_time) - epoch_us(latest_before)) // 1000000 AS seconds_apart,
    COALESCE(payments_in_run = 1 AND (epoch_us(latest_before) // {BUCKET_US} + 1) * {BUCKET_US} + extra_retention <= watermark, FALSE)
        AS beyond_horizon
FROM seen s LEFT JOIN bounds ON s.run = bounds.run
WHERE paid = 1 AND (payments_in_run > 1 OR payments_before > 0) AND ($date IS NULL OR DATE(s.event_time) = $date::DATE)
ORDER BY ALL
"""
"""Second payments of an id. One is beyond the horizon when the ids that the run loaded did not hold it any more: its lowest start
watermark had passed the minute of the latest earlier copy."""

TABLES_BY_RUN: Final = f"""
WITH expected AS (
    SELECT run_id, t."table" AS table_name, t."rows" AS rows FROM (SELECT run_id, unnest(tables) AS t FROM {RUNS} WHERE status = '{COMMITTED}')
    WHERE t."table" <> '{TOTALS}'
), found AS (
    SELECT g.run_id, r.table_name, COUNT(*) AS rows FROM (
        {_rows("kafka_topic, kafka_partition, kafka_offset")} UNION ALL
        SELECT '{GAPS}', kafka_topic, kafka_partition, first_offset FROM {GAPS}
    ) r ASOF JOIN ({_ranges(COMMITTED)}) g
    ON r.kafka_topic = g.kafka_topic AND r.kafka_partition = g.kafka_partition AND r.kafka_offset >= g.from_offset
    WHERE r.kafka_offset < g.to_offset GROUP BY ALL
)
SELECT run_id, table_name, expected.rows AS rows_in_ledger, found.rows AS rows_in_table
FROM expected FULL JOIN found USING (run_id, table_name) WHERE expected.rows IS DISTINCT FROM found.rows ORDER BY ALL
"""


def totals_differences(amount_column: str | None, currency_column: str | None, with_run_in_flight: bool) -> str:
    """Windows whose totals are not what the tables add up to."""
    found = totals_of_rows((lambda table: table) if with_run_in_flight else _not_in_flight, amount_column, currency_column)
    return f"""
WITH found AS ({found}), told AS (
    SELECT window_start, outcome, currency, SUM(records) AS records, SUM(amount) AS amount, SUM(checksum) % (1::HUGEINT << 60) AS checksum
    FROM {TOTALS} GROUP BY ALL
)
SELECT COALESCE(told.window_start, found.window_start) AS window_start, COALESCE(told.outcome, found.outcome) AS outcome,
    COALESCE(told.currency, found.currency) AS currency,
    told.records AS records_in_totals, found.records AS records_in_tables,
    told.amount AS amount_in_totals, found.amount AS amount_in_tables, told.checksum = found.checksum AS same_ids
FROM told FULL JOIN found ON told.window_start = found.window_start AND told.outcome = found.outcome
    AND told.currency IS NOT DISTINCT FROM found.currency
WHERE told.records IS DISTINCT FROM found.records OR told.amount IS DISTINCT FROM found.amount
    OR told.checksum IS DISTINCT FROM found.checksum
ORDER BY ALL"""
