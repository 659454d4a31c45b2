"""The questions of transforms/destinations/contract/checks.py, one text each for all dialects."""

from __future__ import annotations

from functools import partial

from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.contract.run_ledger import COMMITTED
from transforms.destinations.contract.seed import Seed
from transforms.destinations.sql.coordinates import (
    event_times,
    in_range,
    offset_runs,
    ranges_of_runs,
    rows_of_tables,
    same_partition,
    union,
)
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.hashing import COORDINATE_TEXT, fingerprint
from transforms.destinations.sql.seeds import all_of_seed
from transforms.destinations.sql.totals_differences import totals_differences, window_text
from transforms.destinations.sql.views import views
from transforms.destinations.sql.visible_rows import count_rows
from transforms.model.tables import (
    AUDIT_VIEW,
    DELETED,
    DUPLICATES,
    GAPS,
    PAYMENTS,
    REJECTED,
    RUNS,
    TOTALS,
)
from transforms.model.totals import UNOBSERVED


def check_queries(dialect: Dialect) -> CheckQueries:
    """All questions in one dialect."""
    table, rows = dialect.table, rows_of_tables(dialect)
    return CheckQueries(
        distinct_ids=f"""
SELECT COUNT(DISTINCT transaction_id) AS uniq, COUNT(*) AS total FROM {table(PAYMENTS)}
WHERE {_within(dialect, "event_time")}""",
        row_count=count_rows(dialect),
        duplicate_rate=f"""
SELECT AVG(dup_count) AS average FROM ({views(dialect)[AUDIT_VIEW]})
WHERE {_within(dialect, "first_occurrence_time")}""",
        copies_of_repeated_ids=_copies_of_repeated_ids(dialect),
        unpaid_ids=lambda seed: f"SELECT COUNT(*) AS n FROM ({_unpaid_ids(dialect, seed)})",
        unpaid_duplicates=partial(_unpaid_duplicates, dialect),
        copies_of_seed=partial(_copies_of_seed, dialect),
        coordinate_runs=offset_runs(dialect.divide, f"({rows})", "kafka_topic, kafka_partition"),
        repeated_coordinates=f"""
SELECT kafka_topic, kafka_partition, kafka_offset, COUNT(*) AS n,
    STRING_AGG(table_name, ', ' ORDER BY table_name) AS tables
FROM ({rows}) GROUP BY kafka_topic, kafka_partition, kafka_offset HAVING COUNT(*) > 1""",
        gaps=f"SELECT kafka_topic, kafka_partition, first_offset, last_offset FROM {table(GAPS)}",
        gap_offsets=_gap_offsets(dialect),
        accepted_losses=f"""
SELECT kafka_topic, kafka_partition, MIN(first_offset) AS first_offset,
    MAX(last_offset) AS last_offset,
    CAST(SUM(last_offset - first_offset + 1) AS INT64) AS offsets
FROM {table(GAPS)} WHERE cause = '{DELETED}'
GROUP BY kafka_topic, kafka_partition ORDER BY kafka_topic, kafka_partition""",
        rejections=f"""
SELECT r.kafka_topic, r.reason, r.detail, COUNT(*) AS records, MIN({COORDINATE_TEXT}) AS example
FROM {dialect.aliased(REJECTED, "r")} JOIN {dialect.ranges} AS f ON {in_range("r", "f")}
WHERE {_within(dialect, "r.ingest_time")} GROUP BY r.kafka_topic, r.reason, r.detail""",
        rows_by_run=_rows_by_run(dialect),
        highest_event_times=_highest_event_times(dialect),
        reasons=f"""
SELECT reason, COUNT(*) AS n FROM {table(REJECTED)}
WHERE {_within(dialect, "ingest_time")}
    AND {dialect.is_among(dialect.micros("ingest_time"), "times")}
GROUP BY reason""",
        unobserved_windows=f"""
SELECT DISTINCT {window_text("window_start")} AS window_start FROM {table(TOTALS)}
WHERE outcome = '{UNOBSERVED}'""",
        totals_differences=partial(totals_differences, dialect),
    )


def _within(dialect: Dialect, column: str) -> str:
    """A condition on the bare column, so that BigQuery leaves out partitions by it."""
    first, last = (dialect.moment(dialect.parameter(name)) for name in ("first_time", "last_time"))
    return f"{column} BETWEEN {first} AND {last}"


def _copies_of_repeated_ids(dialect: Dialect) -> str:
    """The query for all payments and duplicates of repeated ids.

    One day's bounds leave out no partition: the other payments of an id may lie on any day.
    """
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


def _copies_of_seed(dialect: Dialect, seed: Seed) -> str:
    copies = union(
        f"""
    SELECT {str(table == PAYMENTS).upper()} AS is_payment, r.transaction_id,
        {dialect.micros("r.event_time")} AS event_time_us, r.kafka_topic, r.kafka_partition,
        r.kafka_offset
    FROM {dialect.aliased(table, "r")} JOIN doubled ON r.transaction_id = doubled.transaction_id"""
        for table in (PAYMENTS, DUPLICATES)
    )
    return f"""
WITH doubled AS (
    SELECT s.transaction_id, MAX(s.event_time) AS event_time
    FROM ({all_of_seed(dialect, seed)}) AS s
    WHERE s.transaction_id IN (SELECT transaction_id FROM {dialect.table(PAYMENTS)})
    GROUP BY s.transaction_id
)
{copies}
UNION ALL
SELECT TRUE, transaction_id, {dialect.micros("event_time")}, '', -1, -1 FROM doubled"""


def _unpaid_ids(dialect: Dialect, seed: Seed | None) -> str:
    elsewhere = ""
    if seed is not None:
        ids = f"SELECT transaction_id FROM ({all_of_seed(dialect, seed)})"
        elsewhere = f" AND d.transaction_id NOT IN ({ids})"
    return f"""
    SELECT d.transaction_id, COUNT(*) AS copies
    FROM {dialect.aliased(DUPLICATES, "d")} LEFT JOIN {dialect.aliased(PAYMENTS, "p")}
    ON d.transaction_id = p.transaction_id WHERE p.transaction_id IS NULL{elsewhere}
    GROUP BY d.transaction_id"""


def _unpaid_duplicates(dialect: Dialect, seed: Seed | None) -> str:
    """Every payment is hashed here: asked only where an id has no payment of its own."""
    of_id, of_payment = (
        fingerprint(dialect, dialect.digest(f"{alias}.transaction_id")) for alias in ("d", "p")
    )
    paid = f"SELECT {of_payment} AS fingerprint FROM {dialect.aliased(PAYMENTS, 'p')}"
    if seed is not None:
        paid += f"""
    UNION ALL SELECT {of_payment} FROM ({all_of_seed(dialect, seed)}) AS p"""
    return f"""
WITH unpaid AS (
    SELECT d.transaction_id, d.copies, {of_id} AS fingerprint
    FROM ({_unpaid_ids(dialect, seed)}) AS d
), paid AS (
    {paid}
)
SELECT unpaid.transaction_id, unpaid.copies
FROM unpaid LEFT JOIN paid ON unpaid.fingerprint = paid.fingerprint
WHERE paid.fingerprint IS NULL ORDER BY transaction_id"""


def _gap_offsets(dialect: Dialect) -> str:
    return f"""
SELECT r.kafka_topic, CAST(SUM(
    LEAST(r.last_offset + 1, f.to_offset) - GREATEST(r.first_offset, f.from_offset)
) AS INT64) AS offsets
FROM {dialect.aliased(GAPS, "r")} JOIN {dialect.ranges} AS f ON {same_partition("r", "f")}
    AND r.first_offset < f.to_offset AND r.last_offset >= f.from_offset
GROUP BY r.kafka_topic"""


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
    FROM {dialect.aliased(RUNS, "run")}, {dialect.elements("run.tables", "t")}
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
