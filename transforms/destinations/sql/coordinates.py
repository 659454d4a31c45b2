"""Pieces of SQL about coordinates (topic, partition, offset) that several questions share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from transforms.destinations.contract.checks import OFFSETS_PER_BLOCK
from transforms.destinations.sql.dialect import Dialect
from transforms.model.tables import DUPLICATES, PAYMENTS, ROW_TABLES, RUNS


def union(selects: Iterable[str]) -> str:
    """All rows of all queries."""
    return " UNION ALL ".join(selects)


def rows_of_tables(dialect: Dialect) -> str:
    """Query: the coordinates of all rows of the three tables, with `table_name`."""
    return union(
        f"SELECT '{table}' AS table_name, kafka_topic, kafka_partition, kafka_offset"
        f" FROM {dialect.table(table)}"
        for table in ROW_TABLES
    )


def ranges_of_runs(dialect: Dialect, status: str) -> str:
    """Query: the ranges that runs with this status have read, without empty ones.

    Columns: `run_id`, `kafka_topic`, `kafka_partition`, `from_offset`, `to_offset` (exclusive).
    """
    return f"""
SELECT run.run_id, part.topic AS kafka_topic, part.{dialect.quoted("partition")} AS kafka_partition,
    part.from_offset, part.to_offset
FROM {dialect.aliased(RUNS, "run")}, {dialect.elements("run.partitions", "part")}
WHERE run.status = '{status}' AND part.to_offset > part.from_offset"""


def same_partition(row: str, other: str) -> str:
    """Condition on two aliases: equal topic and partition."""
    return f"""{row}.kafka_topic = {other}.kafka_topic
    AND {row}.kafka_partition = {other}.kafka_partition"""


def in_range(row: str, span: str, offset: str = "kafka_offset") -> str:
    """Condition on two aliases: a row's coordinate lies in a range.

    The equalities let a database join by hash.
    """
    return f"""{same_partition(row, span)}
    AND {row}.{offset} >= {span}.from_offset AND {row}.{offset} < {span}.to_offset"""


def offset_runs(divide: Callable[[str, int], str], rows: str, keys: str) -> str:
    """Query: runs of offsets without a hole, for each value of the columns `keys`.

    Columns: `keys`, `first_offset`, `last_offset`, and `n`, the number of rows. A run ends at the
    border of a block (OFFSETS_PER_BLOCK). divide: Dialect.divide; rows: what stands in FROM.
    DENSE_RANK gives a repeated offset its number once, so that it is part of its run.
    """
    block = divide("kafka_offset", OFFSETS_PER_BLOCK)
    return f"""
SELECT {keys}, MIN(kafka_offset) AS first_offset, MAX(kafka_offset) AS last_offset, COUNT(*) AS n
FROM (
    SELECT {keys}, kafka_offset, {block} AS block, kafka_offset - DENSE_RANK() OVER (
        PARTITION BY {keys}, {block} ORDER BY kafka_offset) AS island
    FROM {rows}
) GROUP BY {keys}, block, island"""


def event_times(dialect: Dialect) -> str:
    """Query: `event_time` and coordinates of all payments and duplicates."""
    return union(
        f"SELECT kafka_topic, kafka_partition, kafka_offset, event_time FROM {dialect.table(table)}"
        for table in (PAYMENTS, DUPLICATES)
    )
