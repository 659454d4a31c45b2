"""A run dies while it becomes visible, and its write streams expire before the next run starts:
days later, on BigQuery.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.check.command import check
from pipeline.check.result import NOTED
from pipeline.run import command as run_module
from pipeline.run import prepare as prepare_step
from tests.faults.dying import ProcessDied, die_after
from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    table,
)
from tests.support.whole_runs import SENT, all_of_it_once, expire, failures, fill
from transforms.destinations.contract.run_ledger import ABORTED, COMMITTED, GENESIS, PREPARED
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.streams import DuckDBStreams
from transforms.model.errors import GuaranteeError

TABLES = 5
STATUSES = "SELECT status FROM pipeline_runs WHERE run_id <> 'genesis' ORDER BY plan_time, status"


@pytest.fixture
def filled(kafka: InMemoryKafka) -> InMemoryKafka:
    fill(kafka)
    return kafka


def is_right(path: Path, sent: Counter[str] = SENT, broken: int = 2) -> None:
    assert failures(path) == []
    all_of_it_once(lambda sql: table(path, sql), sent, broken)


@pytest.mark.parametrize("commits", range(TABLES + 1))
def test_a_run_whose_streams_expired_becomes_complete(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    die_after(commits, path, monkeypatch)
    expire(path)
    run(config(path))
    is_right(path)
    whole = {0: [(ABORTED,), (COMMITTED,)], TABLES: [(COMMITTED,)]}
    assert table(path, STATUSES) == whole.get(commits, [(ABORTED,), (COMMITTED,)])
    assert run(config(path)) == []


@pytest.mark.parametrize("which", ["state <> 'COMMITTED'", "hash(stream) % 2 = 0"])
@pytest.mark.parametrize("commits", range(TABLES))
def test_streams_may_expire_one_by_one(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, commits: int, which: str
) -> None:
    die_after(commits, path, monkeypatch)
    expire(path, which)
    run(config(path))
    is_right(path)


def test_a_group_of_a_table_that_was_committed_before_the_others_expired(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some payments of one table are visible, others are not: a copy of a visible one is a
    duplicate, of another one it may win.
    """
    monkeypatch.setattr(prepare_step, "STREAMS_PER_COMMIT", 1)
    original = DuckDBStreams.commit
    groups = 0

    def dying(self: DuckDBStreams, name: str, streams: list[str]) -> None:
        nonlocal groups
        if groups == 2:
            raise ProcessDied
        groups += 1
        original(self, name, streams)

    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(DuckDBStreams, "commit", dying)
        run(config(path, shards=4))
    visible = table(path, "SELECT COUNT(*) FROM payment_transactions")[0][0]
    assert 0 < visible < len(SENT) + 2
    expire(path)
    run(config(path))
    is_right(path)


@pytest.mark.parametrize("commits", [1, 2, 4])
@pytest.mark.parametrize("again", range(TABLES))
def test_a_repair_that_dies_and_expires_is_repaired(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, commits: int, again: int
) -> None:
    die_after(commits, path, monkeypatch)
    expire(path)
    die_after(again, path, monkeypatch)
    expire(path)
    run(config(path))
    is_right(path)


def test_records_that_kafka_has_deleted_meanwhile_are_taken_from_the_tables(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offsets 0 and 1 are visible payments; retention has removed them. Offset 2, a copy, is still
    in Kafka.
    """
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("b"), payment("a"))
    die_after(1, path, monkeypatch)
    expire(path)
    kafka.topics["payments"].partitions[0].deleted = 2
    run(config(path))
    assert table(
        path, "SELECT transaction_id, kafka_offset FROM payment_transactions ORDER BY ALL"
    ) == [("a", 0), ("b", 1)]
    assert table(path, "SELECT transaction_id, kafka_offset FROM duplicate_transactions") == [
        ("a", 2)
    ]
    assert failures(path) == []


def test_records_that_are_neither_visible_nor_in_kafka_stop_the_repair_or_are_recorded_as_lost(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("a"), b"broken")
    die_after(1, path, monkeypatch)
    expire(path)
    kafka.topics["payments"].partitions[0].deleted = 3
    with pytest.raises(
        GuaranteeError, match=r"offsets 1 to 2 were deleted .*--on_data_loss=accept"
    ):
        run(config(path))
    assert table(path, STATUSES) == [(PREPARED,)]
    run(config(path, on_data_loss="accept"))
    assert table(path, "SELECT first_offset, last_offset, cause FROM offset_gaps") == [
        (1, 2, "deleted")
    ]
    assert failures(path) == []


@pytest.mark.parametrize("change", ["vanished", "recreated", "another cluster"])
def test_a_repair_from_another_log_is_refused(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    die_after(1, path, monkeypatch)
    expire(path)
    if change == "vanished":
        filled.topics["payments"].partitions.pop()
    elif change == "recreated":
        filled.topics["payments"].topic_id = "another one"
    else:
        filled.cluster = "cluster-2"
    with pytest.raises(GuaranteeError):
        run(config(path))
    assert table(path, STATUSES) == [(PREPARED,)]


def test_a_repair_reads_topics_that_this_run_does_not_name(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.create("refunds", 1)
    kafka.send("payments", 0, payment("a"), payment("b"))
    kafka.send("refunds", 0, payment("a"), payment("c"))
    die_after(1, path, monkeypatch, topics=("payments", "refunds"))
    expire(path)
    kafka.send("payments", 0, payment("c"))
    run(config(path))
    assert [
        row[0]
        for row in table(path, "SELECT transaction_id FROM payment_transactions ORDER BY ALL")
    ] == ["a", "b", "c"]
    assert table(path, "SELECT COUNT(*) FROM duplicate_transactions") == [(2,)]
    assert failures(path) == []


def test_a_repair_keeps_the_watermark_that_the_expired_run_reached(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest payment is visible, so the repair does not judge it: the watermark must not fall
    back behind it.
    """
    kafka.create("payments", 1)
    kafka.send(
        "payments",
        0,
        payment("old", NOW_US - 3 * HOUR_US),
        payment("new"),
        payment("old", NOW_US - 3 * HOUR_US),
    )
    die_after(1, path, monkeypatch)
    expire(path)
    run(config(path))
    kafka.send("payments", 0, payment("late", NOW_US - 2 * HOUR_US))
    run(config(path))
    assert table(path, "SELECT reason, kafka_offset FROM rejected_records") == [("late", 3)]
    assert failures(path) == []


def test_a_run_that_needs_a_repair_is_reported_as_in_flight(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    die_after(2, path, monkeypatch)
    expire(path)
    assert failures(path) == []
    with DuckDBDestination(str(path)) as destination:
        assert [
            result.name for result in check(destination, None, 100.0, 400) if result.status == NOTED
        ][-1] == "run in flight"


def test_altered_tables_are_not_repaired_over(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything of the run is visible, but rows of an earlier one are missing: whether its totals
    are there cannot be found out.
    """
    run(config(path, max_records_per_run=4))
    filled.send("payments", 0, payment("x"), payment("y"), payment("x"), b"broken", MARKER)
    die_after(4, path, monkeypatch)
    expire(path)
    table(path, "DELETE FROM payment_transactions WHERE transaction_id = 'a'")
    with pytest.raises(GuaranteeError, match="control_totals miss"):
        run(config(path))


def test_genesis_is_never_repaired(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(run_module, "run_once", lambda *_: (_ for _ in ()).throw(ProcessDied()))
        run(config(path))
    expire(path)
    assert table(path, "SELECT run_id, status FROM pipeline_runs") == [(GENESIS, COMMITTED)]
    run(config(path))
    is_right(path)
