"""How long payments take from Kafka's timestamp to the end of the commit, from the moments that
benchmarks/timed_run.py has noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

_FOR_EVER_US = 1 << 60


@dataclass(frozen=True)
class Moment:
    """Of a transaction: the plan time, which is the `ingest_time` of its rows, and when it had
    become visible; both in microseconds since 1970.
    """

    plan_us: int
    visible_us: int


@dataclass(frozen=True)
class Latency:
    """Seconds. rows: how many it is of."""

    p50: float
    p99: float
    longest: float
    rows: int

    def __str__(self) -> str:
        return f"p50 {self.p50:.1f} s, p99 {self.p99:.1f} s"


def noted_moments(file: Path) -> list[Moment]:
    """In the order in which they were noted; none where there is no file."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [Moment(*map(int, line.split())) for line in lines]


def latency(
    tables: duckdb.DuckDBPyConnection,
    table: str,
    moments: Sequence[Moment],
    since_us: int = 0,
    until_us: int = _FOR_EVER_US,
) -> Latency:
    """Of the rows whose Kafka timestamp lies in [since_us, until_us), microseconds since 1970.

    table: of `tables`, with the columns kafka_timestamp and ingest_time. A process that is killed
    behind a commit notes nothing: such rows count as visible with the next transaction, so a bit
    later than they were. Raises ValueError where there is no such row.
    """
    tables.execute("CREATE OR REPLACE TEMP TABLE noted (plan_us BIGINT, visible_us BIGINT)")
    pairs = [(moment.plan_us, moment.visible_us) for moment in moments]
    tables.executemany("INSERT INTO noted VALUES (?, ?)", pairs)
    (found,) = tables.execute(
        f"""
        WITH planned AS (SELECT DISTINCT ingest_time, epoch_us(ingest_time) AS at_us FROM {table}),
        visible AS (
            SELECT ingest_time, visible_us FROM planned ASOF JOIN noted ON at_us <= plan_us
        ),
        taken AS (
            SELECT (visible_us - epoch_us(kafka_timestamp)) / 1e6 AS seconds
            FROM {table} JOIN visible USING (ingest_time)
            WHERE epoch_us(kafka_timestamp) >= ? AND epoch_us(kafka_timestamp) < ?
        )
        SELECT quantile_cont(seconds, [0.5, 0.99]), max(seconds), count(*) FROM taken
        """,
        [since_us, until_us],
    ).fetchall()
    shares, longest, rows = found
    if not rows:
        raise ValueError(f"{table} has no row of a noted transaction in that time")
    return Latency(*shares, longest, rows)
