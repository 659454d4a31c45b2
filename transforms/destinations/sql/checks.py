"""The questions of transforms/destinations/contract/checks.py, one text each for all dialects."""

from __future__ import annotations

from functools import partial

from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.contract.run_ledger import COMMITTED
from transforms.destinations.sql.coordinates import (
    event_times,
    offset_runs,
    ranges_of_runs,
    rows_of_tables,
    union,
)
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.totals_differences import totals_differences, window_text
from transforms.model.tables import AUDIT_VIEW, DUPLICATES, GAPS, PAYMENTS, REJECTED, RUNS, TOTALS
from transforms.model.totals import UNOBSERVED


def check_queries(dialect: Dialect) -> CheckQueries:
    """All questions in one dialect."""
    table, rows = dialect.table, rows_of_tables(dialect)
    return CheckQueries(
        distinct_ids=f"""
SELECT COUNT(DISTINCT transaction_id) AS uniq, COUNT(*) AS total FROM {table(PAYMENTS)}
WHERE {_within(dialect, "event_time")}""",
        duplicate_rate=f"""
SELECT AVG(dup_count) AS average FROM {table(AUDIT_VIEW)}
WHERE {_within(dialect, "first_occurrence_time")}""",
        copies_of_repeated_ids=_copies_of_repeated_ids(dialect),
        coordinate_runs=offset_runs(dialect.divide, f"({rows})", "kafka_topic, kafka_partition"),
        repeated_coordinates=f"""
SELECT kafka_topic, kafka_partition, kafka_offset, COUNT(*) AS n,
    STRING_AGG(table_name, ', ' ORDER BY table_name) AS tables
FROM ({rows}) GROUP BY kafka_topic, kafka_partition, kafka_offset HAVING COUNT(*) > 1""",
        gaps=f"SELECT kafka_topic, kafka_partition, first_offset, last_offset FROM {table(GAPS)}",
        rows_by_run=_rows_by_run(dialect),
        highest_event_times=_highest_event_times(dialect),
        reasons=f"""
SELECT reason, CAST(SUM(n) AS INT64) AS n, MAX_BY(detail, n) AS detail, MAX(n) AS n_of_detail
FROM (
    SELECT reason, COALESCE(detail, '') AS detail, COUNT(*) AS n FROM {table(REJECTED)}
    WHERE {_within(dialect, "ingest_time")}
        AND {dialect.is_among(dialect.micros("ingest_time"), "times")}
    GROUP BY 1, 2
) GROUP BY reason""",
        unobserved_windows=f"""
SELECT DISTINCT {window_text("window_start")} AS window_start FROM {table(TOTALS)}
WHERE outcome = '{UNOBSERVED}'""",
        totals_differences=partial(totals_differences, dialect),
    )


def _within(dialect: Dialect, column: str) -> str:
    """Condition on the bare column: the database leaves out partitions that cannot fulfil it."""
    first, last = (dialect.moment(dialect.parameter(name)) for name in ("first_time", "last_time"))
    return f"{column} BETWEEN {first} AND {last}"


def _copies_of_repeated_ids(dialect: Dialect) -> str:
    """One day's bounds leave out no partition: the other payments of an id may lie on any day."""
    copies = union(
        f"""
    SELECT {str(table == PAYMENTS).upper()} AS is_payment, transaction_id,
        {dialect.micros("event_time")} AS event_time_us, kafka_topic, kafka_partition, kafka_offset
    FROM {dialect.table(table)}"""
        for table in (PAYMENTS, DUPLICATES)
    )
    return f"""
WITH repeated AS (
    SELECT transaction_id FROM {dialect.table(PAYMENTS)} GROUP BY transaction_id
    HAVING COUNT(*) > 1 AND COUNTIF({_within(dialect, "event_time")}) > 0
)
SELECT is_payment, transaction_id, event_time_us, kafka_topic, kafka_partition, kafka_offset
FROM ({copies}) JOIN repeated USING (transaction_id)"""


def _rows_by_run(dialect: Dialect) -> str:
    gaps = f"SELECT '{GAPS}', kafka_topic, kafka_partition, first_offset FROM {dialect.table(GAPS)}"
    rows = union([rows_of_tables(dialect), gaps])
    table, count = dialect.quoted("table"), dialect.quoted("rows")
    return f"""
WITH stored AS (
    SELECT f.run_id, r.table_name, COUNT(*) AS n
    {dialect.rows_in_ranges(rows, ranges_of_runs(dialect, COMMITTED))}
    GROUP BY f.run_id, r.table_name
), expected AS (
    SELECT run.run_id, t.{table} AS table_name, t.{count} AS n
    FROM {dialect.table(RUNS)} AS run, {dialect.elements("run.tables", "t")}
    WHERE run.status = '{COMMITTED}' AND t.{table} <> '{TOTALS}'
)
SELECT run_id, table_name, expected.n AS rows_in_ledger, stored.n AS rows_in_table
FROM expected FULL JOIN stored USING (run_id, table_name)
WHERE expected.n IS DISTINCT FROM stored.n ORDER BY run_id, table_name"""


def _highest_event_times(dialect: Dialect) -> str:
    rows = event_times(dialect)
    return f"""
SELECT f.run_id, r.kafka_topic, r.kafka_partition,
    {dialect.micros("MAX(r.event_time)")} AS highest_us
{dialect.rows_in_ranges(rows, ranges_of_runs(dialect, COMMITTED))}
GROUP BY f.run_id, r.kafka_topic, r.kafka_partition"""
