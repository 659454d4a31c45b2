"""What is kept of streams and reports goes with the run that needed it, whatever became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.run import commit as commit_step
from pipeline.run import repair
from pipeline.run.commit import commit
from pipeline.run.recover import remove_leftovers
from tests.faults.dying import ProcessDied, die_after
from tests.support.in_memory_kafka import InMemoryKafka, config, payment, run, table
from tests.support.streaming.destination import DESTINATIONS
from tests.support.streaming.hand_over import Tables
from tests.support.streaming.log import Sent
from tests.support.streaming.oracle import compare
from tests.support.whole_runs import failures, ids
from transforms.destinations.contract.run_ledger import ABORTED, COMMITTED, PREPARED
from transforms.destinations.contract.write_streams import StreamAlreadyCommitted
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.tables import PAYMENTS

KEPT = ("_write_streams", "_write_stream_appends", "_run_reports")


OF_STREAMS = "SELECT " + ", ".join(f"(SELECT COUNT(*) FROM {name})" for name in KEPT[:2])


def kept(path: Path) -> dict[str, int]:
    return {name: table(path, f"SELECT COUNT(*) FROM {name}")[0][0] for name in KEPT}


def send(kafka: InMemoryKafka, number: int) -> None:
    for partition in range(2):
        kafka.send("payments", partition, payment(f"{number}-{partition}"), b"broken")


@pytest.fixture
def filled(kafka: InMemoryKafka) -> InMemoryKafka:
    kafka.create("payments", 2)
    send(kafka, 0)
    return kafka


def test_after_many_runs_no_more_is_kept_than_after_one(filled: InMemoryKafka, path: Path) -> None:
    run(config(path))
    after_one = kept(path)
    for number in range(1, 6):
        send(filled, number)
        run(config(path))
        assert kept(path) == after_one
    assert after_one == dict.fromkeys(KEPT, 0)
    assert failures(path) == []


def test_after_many_transactions_of_one_run_neither(filled: InMemoryKafka, path: Path) -> None:
    for number in range(1, 6):
        send(filled, number)
    assert len(run(config(path, max_records_per_run=2))) > 5
    assert kept(path) == dict.fromkeys(KEPT, 0)
    assert failures(path) == []


def test_what_earlier_versions_have_left_is_removed(filled: InMemoryKafka, path: Path) -> None:
    run(config(path))
    table(
        path,
        "INSERT INTO _write_streams SELECT 'payment_transactions/' || n, 'payment_transactions', 5,"
        " 'COMMITTED', 'PENDING' FROM range(1000) AS t(n)",
    )
    run(config(path))
    assert kept(path) == dict.fromkeys(KEPT, 0)


def test_a_run_that_died_before_it_was_forgotten_is_forgotten_by_the_next_one(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: Any) -> None:
        raise ProcessDied

    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(commit_step, "forget", dies)
        run(config(path))
    assert all(count > 0 for name, count in kept(path).items() if name != "_write_stream_appends")
    assert run(config(path)) == []
    assert kept(path) == dict.fromkeys(KEPT, 0)
    assert ids(path) == ["0-0", "0-1"]
    assert failures(path) == []


def test_a_committed_stream_says_so_until_its_record_is_committed(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another run has removed what it takes for left over."""
    die_after(1, path, monkeypatch)
    with DuckDBDestination(str(path)) as destination:
        prepared = destination.runs.tail()[-1]
        assert prepared.status == PREPARED
        (groups,) = [one.commit_groups for one in prepared.tables if one.table == PAYMENTS]
        remove_leftovers(destination)
        with pytest.raises(StreamAlreadyCommitted):
            destination.streams.commit(PAYMENTS, groups[0])
    # The streams of the other tables are gone, so the rest is read again.
    run(config(path))
    assert ids(path) == ["0-0", "0-1"]
    assert failures(path) == []
    run(config(path))
    assert kept(path) == dict.fromkeys(KEPT, 0)


LOG = [[Sent(key, number) for number, key in enumerate("abcdef")]]


def test_after_many_jobs_no_more_is_kept_than_after_two(
    kafka: InMemoryKafka, tmp_path: Path
) -> None:
    """What a job closes itself is kept until the next one begins or is stopped: a worker of it that
    is believed dead is to learn that its streams are finalized.
    """
    with DESTINATIONS["duckdb"](tmp_path) as destination:
        tables = Tables(destination, kafka, LOG, offered=[0])
        counts = []
        for end in range(1, 6):
            tables.offer([end])
            for life in range(2):
                attempt = tables.attempt(tables.begin(take_over=life > 0))
                if not life:
                    attempt.bundle([(0, 1)])
                counts.append(destination.behind_the_back(OF_STREAMS))
            tables.stop()
            tables.run()
            counts.append(destination.behind_the_back(OF_STREAMS))
        assert len(counts) == 15
        assert counts[3:6] == counts[6:9] == counts[9:12] == counts[12:15]
        compare(destination, [LOG[0][:5]])
        assert tables.failures() == []


@pytest.mark.parametrize("status", [COMMITTED, ABORTED])
def test_a_process_that_is_late_learns_how_another_one_has_finished_the_run(
    filled: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """Its streams are gone, which says nothing then: the tables may hold a newer run in part."""

    def asks_the_tables(*_: Any) -> str:
        raise AssertionError("the ledger knows")

    die_after(0, path, monkeypatch)
    with DuckDBDestination(str(path)) as destination:
        prepared = destination.runs.tail()[-1]
        if status == COMMITTED:
            assert commit(destination, prepared) == COMMITTED
        else:
            remove_leftovers(destination)
            destination.runs.mark(prepared.run_id, ABORTED)
    send(filled, 1)
    die_after(2, path, monkeypatch)
    monkeypatch.setattr(repair, "status_without_streams", asks_the_tables)
    with DuckDBDestination(str(path)) as destination:
        assert commit(destination, prepared) == status
        assert destination.runs.tail()[-1].status == PREPARED
