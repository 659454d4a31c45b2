"""What the endurance benchmark on Spark makes of a seed, of moments and of tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import duckdb
import pytest

from benchmarks.latency import Latency, Moment, latency
from benchmarks.random_kills import CLIENT, JOB_SERVER, faults_of
from benchmarks.whole_topic import create_tables, differences
from pipeline.produce.message_generator import COPY, PAYMENT
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED

SENT = {PAYMENT: 2, COPY: 1}
RIGHT = [(PAYMENTS, 0, "a"), (DUPLICATES, 1, "a"), (PAYMENTS, 2, "b")]


@pytest.fixture
def tables() -> Iterator[duckdb.DuckDBPyConnection]:
    """A topic with a, a copy of it, and b."""
    with duckdb.connect() as opened:
        create_tables(opened)
        opened.execute("INSERT INTO topic VALUES (0, 0, 'a'), (0, 1, 'a'), (0, 2, 'b')")
        yield opened


def store(tables: duckdb.DuckDBPyConnection, rows: list[tuple[str, int, str]]) -> None:
    tables.executemany("INSERT INTO stored VALUES (?, 0, ?, ?, NULL, NULL)", rows)


def test_the_same_seed_kills_the_same_processes_at_the_same_moments() -> None:
    faults = faults_of(3, 20, 450.0, (CLIENT, JOB_SERVER))
    assert faults == faults_of(3, 20, 450.0, (CLIENT, JOB_SERVER))
    assert faults != faults_of(4, 20, 450.0, (CLIENT, JOB_SERVER))
    kills = Counter(fault.victim for fault in faults if not fault.stopped)
    assert kills == {CLIENT: 10, JOB_SERVER: 10}
    assert sum(fault.stopped > 0 for fault in faults) == 5
    moments = [fault.after for fault in faults]
    assert moments == sorted(moments) and moments[0] >= 0 and moments[-1] <= 450
    assert faults_of(3, 0, 450.0, (CLIENT,)) == []


def test_tables_that_are_right_differ_in_nothing(tables: duckdb.DuckDBPyConnection) -> None:
    store(tables, RIGHT)
    assert differences(tables, SENT) == {}


@pytest.mark.parametrize(
    ("rows", "wrong"),
    [
        (RIGHT[:2], "messages that are in no table"),
        ([*RIGHT, (REJECTED, 2, "b")], "messages with more than one row"),
        ([*RIGHT[:2], (PAYMENTS, 2, "c")], "rows that stand for no message, or for one with"),
        ([*RIGHT[:2], (PAYMENTS, 3, "b")], "messages that are in no table"),
        ([RIGHT[0], (PAYMENTS, 1, "a"), RIGHT[2]], "ids that are not paid exactly once"),
        ([*RIGHT[:2], (DUPLICATES, 2, "b")], "ids that are not paid exactly once"),
        ([*RIGHT[:2], (REJECTED, 2, "b")], "rows too many in rejected_records"),
    ],
)
def test_what_is_lost_or_doubled_is_found(
    rows: list[tuple[str, int, str]], wrong: str, tables: duckdb.DuckDBPyConnection
) -> None:
    store(tables, rows)
    assert any(what.startswith(wrong) for what in differences(tables, SENT))


def test_what_kafka_does_not_have_any_more_is_found(tables: duckdb.DuckDBPyConnection) -> None:
    store(tables, RIGHT)
    found = differences(tables, {PAYMENT: 3, COPY: 1})
    assert found["messages in Kafka that nobody sent, or missing ones"] == -1


def test_rows_of_a_commit_that_was_not_noted_count_as_visible_with_the_next_one(
    tables: duckdb.DuckDBPyConnection,
) -> None:
    tables.executemany(
        "INSERT INTO stored VALUES ('', 0, 0, '', make_timestamptz(?), make_timestamptz(?))",
        [(0, 1_000_000), (500_000, 1_000_000), (1_500_000, 2_000_000), (2_500_000, 3_000_000)],
    )
    noted = [Moment(1_000_000, 1_250_000), Moment(3_000_000, 3_500_000)]
    assert latency(tables, "stored", noted, 1_500_000, 2_500_000) == Latency(2.0, 2.0, 2.0, 1)
    whole = latency(tables, "stored", noted)
    assert (whole.longest, whole.rows) == (2.0, 4)
    assert latency(tables, "stored", noted, 0, 1_000_000).p50 == 1.0
    with pytest.raises(ValueError, match="stored has no row"):
        latency(tables, "stored", noted, 2_500_001)
