"""The questions of check_queries.py in DuckDB's SQL."""

from __future__ import annotations

from typing import Final

from transforms.destinations.contract.checks import OFFSETS_PER_BLOCK, CheckQueries
from transforms.destinations.contract.run_ledger import COMMITTED, PREPARED
from transforms.destinations.duckdb.totals import totals_of_rows
from transforms.model.tables import (
    AUDIT_VIEW,
    DUPLICATES,
    GAPS,
    PAYMENTS,
    REJECTED,
    ROW_TABLES,
    RUNS,
    TOTALS,
)
from transforms.model.totals import UNOBSERVED


def _ranges(status: str) -> str:
    return f"""SELECT run_id, part.topic AS kafka_topic, part."partition" AS kafka_partition, part.from_offset, part.to_offset
        FROM (SELECT run_id, unnest(partitions) AS part FROM {RUNS} WHERE status = '{status}') WHERE part.to_offset > part.from_offset"""


def _within(column: str) -> str:
    return f"{column} BETWEEN make_timestamp($first_time::BIGINT) AND make_timestamp($last_time::BIGINT)"


def _not_in_flight(table: str) -> str:
    return f"""(SELECT * FROM {table} r WHERE NOT EXISTS (SELECT 1 FROM ({_ranges(PREPARED)}) f WHERE f.kafka_topic = r.kafka_topic
        AND f.kafka_partition = r.kafka_partition AND r.kafka_offset >= f.from_offset AND r.kafka_offset < f.to_offset))"""


ROWS: Final = " UNION ALL ".join(
    f"SELECT '{table}' AS table_name, kafka_topic, kafka_partition, kafka_offset FROM {table}"
    for table in ROW_TABLES
)
"""All rows of the three tables, with the name of the table."""

_COPIES: Final = " UNION ALL ".join(
    f"SELECT {table == PAYMENTS} AS is_payment, transaction_id, epoch_us(event_time) AS"
    " event_time_us, kafka_topic, kafka_partition,"
    f" kafka_offset FROM {table} WHERE transaction_id IN (FROM repeated)"
    for table in (PAYMENTS, DUPLICATES)
)


def offset_runs(rows: str, keys: str) -> str:
    """Runs without a hole for each value of the columns `keys`: those, `first_offset`,
    `last_offset`, and `n` rows.

    rows: what stands in FROM. DENSE_RANK gives a repeated offset its number once, so that it is
    part of its run.
    """
    return f"""SELECT {keys}, MIN(kafka_offset) AS first_offset, MAX(kafka_offset) AS last_offset, COUNT(*) AS n FROM (
        SELECT {keys}, kafka_offset, kafka_offset // {OFFSETS_PER_BLOCK} AS block, kafka_offset - DENSE_RANK() OVER (
            PARTITION BY {keys}, kafka_offset // {OFFSETS_PER_BLOCK} ORDER BY kafka_offset) AS island
        FROM {rows}
    ) GROUP BY {keys}, block, island"""


_ROWS_BY_RUN: Final = f"""
WITH expected AS (
    SELECT run_id, t."table" AS table_name, t."rows" AS n FROM (SELECT run_id, unnest(tables) AS t FROM {RUNS} WHERE status = '{COMMITTED}')
    WHERE t."table" <> '{TOTALS}'
), found AS (
    SELECT g.run_id, r.table_name, COUNT(*) AS n
    FROM ({ROWS} UNION ALL SELECT '{GAPS}', kafka_topic, kafka_partition, first_offset FROM {GAPS}) r
    ASOF JOIN ({_ranges(COMMITTED)}) g
    ON r.kafka_topic = g.kafka_topic AND r.kafka_partition = g.kafka_partition AND r.kafka_offset >= g.from_offset
    WHERE r.kafka_offset < g.to_offset GROUP BY ALL
)
SELECT run_id, table_name, expected.n AS rows_in_ledger, found.n AS rows_in_table
FROM expected FULL JOIN found USING (run_id, table_name) WHERE expected.n IS DISTINCT FROM found.n ORDER BY ALL
"""


_HIGHEST: Final = f"""
SELECT g.run_id, r.kafka_topic, r.kafka_partition, MAX(epoch_us(r.event_time)) AS highest_us
FROM (
    SELECT kafka_topic, kafka_partition, kafka_offset, event_time FROM {PAYMENTS}
    UNION ALL SELECT kafka_topic, kafka_partition, kafka_offset, event_time FROM {DUPLICATES}
) r ASOF JOIN ({_ranges(COMMITTED)}) g
ON r.kafka_topic = g.kafka_topic AND r.kafka_partition = g.kafka_partition AND r.kafka_offset >= g.from_offset
WHERE r.kafka_offset < g.to_offset GROUP BY ALL
"""


def _totals_differences(
    amount_column: str | None, currency_column: str | None, with_run_in_flight: bool
) -> str:
    found = totals_of_rows(
        (lambda table: table) if with_run_in_flight else _not_in_flight,
        amount_column,
        currency_column,
    )
    return f"""
WITH found AS ({found}), told AS (
    SELECT window_start, outcome, currency, SUM(records) AS records, SUM(amount) AS amount, SUM(checksum) % (1::HUGEINT << 60) AS checksum
    FROM {TOTALS} WHERE outcome <> '{UNOBSERVED}' GROUP BY ALL
)
SELECT COALESCE(told.window_start, found.window_start)::VARCHAR AS window_start, COALESCE(told.outcome, found.outcome) AS outcome,
    COALESCE(told.currency, found.currency) AS currency,
    told.records AS records_in_totals, found.records AS records_in_tables,
    told.amount AS amount_in_totals, found.amount AS amount_in_tables, told.checksum = found.checksum AS same_ids
FROM told FULL JOIN found ON told.window_start = found.window_start AND told.outcome = found.outcome
    AND told.currency IS NOT DISTINCT FROM found.currency
WHERE told.records IS DISTINCT FROM found.records OR told.amount IS DISTINCT FROM found.amount
    OR told.checksum IS DISTINCT FROM found.checksum
ORDER BY ALL"""


DUCKDB_CHECKS: Final = CheckQueries(
    distinct_ids=f"SELECT COUNT(DISTINCT transaction_id) AS uniq, COUNT(*) AS total FROM {PAYMENTS} WHERE {_within('event_time')}",
    duplicate_rate=f"SELECT AVG(dup_count) AS average FROM {AUDIT_VIEW} WHERE {_within('first_occurrence_time')}",
    copies_of_repeated_ids=f"""
WITH repeated AS (
    SELECT transaction_id FROM {PAYMENTS} GROUP BY transaction_id HAVING COUNT(*) > 1 AND COUNT(*) FILTER ({_within("event_time")}) > 0
)
{_COPIES}""",
    coordinate_runs=offset_runs(f"({ROWS})", "kafka_topic, kafka_partition"),
    repeated_coordinates=f"""
SELECT kafka_topic, kafka_partition, kafka_offset, COUNT(*) AS n, string_agg(table_name, ', ' ORDER BY table_name) AS tables
FROM ({ROWS}) GROUP BY ALL HAVING COUNT(*) > 1""",
    gaps=f"SELECT kafka_topic, kafka_partition, first_offset, last_offset FROM {GAPS}",
    rows_by_run=_ROWS_BY_RUN,
    highest_event_times=_HIGHEST,
    reasons=f"""SELECT reason, COUNT(*) AS n FROM {REJECTED} WHERE {_within("ingest_time")}
        AND epoch_us(ingest_time) IN (SELECT unnest($times::BIGINT[])) GROUP BY reason""",
    unobserved_windows=f"SELECT DISTINCT window_start::VARCHAR AS window_start FROM {TOTALS} WHERE outcome = '{UNOBSERVED}'",
    totals_differences=_totals_differences,
)
