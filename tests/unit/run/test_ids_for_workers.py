"""Workers in other processes: the command asks the tables once, and lays the ids in --state_dir."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from pipeline.run import command
from pipeline.run.ids_between_runs import IdsBetweenRuns
from pipeline.run.kept import KeptBetweenRuns
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    use,
)
from tests.support.remembered_ids import in_another_process
from tests.support.whole_runs import COPIES, expire, failures, ids
from transforms.deduplicate import id_files, known_ids
from transforms.deduplicate.id_files import IdFiles
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import TryAgainLater
from transforms.model.tables import DUPLICATES

SAID = "each worker process asks the tables"


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> InMemoryKafka:
    """Step 3 knows nothing of what the command knows, as a process of its own would."""
    kafka = InMemoryKafka()
    use(kafka, monkeypatch)
    kafka.create("payments", 2)
    monkeypatch.setattr(command, "read_and_write", in_another_process(command.read_and_write))
    return kafka


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The run for which the tables were asked, each time."""
    found, ask = [], known_ids._ask

    def counted(destination: Any, start: known_ids.ColdStart, *more: Any) -> known_ids.KnownIds:
        found.append(start.job)
        return ask(destination, start, *more)

    monkeypatch.setattr(known_ids, "_ask", counted)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payments.duckdb"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ids"


def a_command(path: Path, folder: Path) -> IdsBetweenRuns:
    return IdsBetweenRuns(IdFiles(str(folder), f"duckdb:{path}"), workers_here=False)


def send(kafka: InMemoryKafka, transaction_ids: str) -> None:
    for partition in range(2):
        kafka.send("payments", partition, *map(payment, transaction_ids))


def test_they_are_asked_once_however_many_shards_there_are(
    kafka: InMemoryKafka, path: Path, folder: Path, asked: list[str]
) -> None:
    for sent in ("abc", "ad", "be"):
        send(kafka, sent)
        run(config(path, shards=8), ids=a_command(path, folder))
        # The first run has left its ids in files.
        assert len(asked) == 1
    assert ids(path) == list("abcde")
    assert failures(path) == []


def test_files_that_are_lost_are_laid_out_anew(
    kafka: InMemoryKafka, path: Path, folder: Path, asked: list[str]
) -> None:
    send(kafka, "abc")
    run(config(path), ids=a_command(path, folder))
    for file in folder.iterdir():
        file.unlink()
    send(kafka, "ad")
    (record,) = run(config(path, shards=8), ids=a_command(path, folder))
    assert asked[1:] == [record.run_id]
    assert sorted(file.stem for file in folder.iterdir()) == [
        record.run_id,
        f"{record.run_id}-begin",
    ]
    send(kafka, "ab")
    run(config(path, shards=8), ids=a_command(path, folder))
    assert len(asked) == 2
    assert (ids(path), sorted(set(ids(path, COPIES)))) == (list("abcd"), list("abcd"))
    assert failures(path) == []


def test_what_a_run_that_died_has_laid_out_is_read_by_none(
    kafka: InMemoryKafka,
    path: Path,
    folder: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Before the claim, and behind it, where the next command finishes the run.

    Asked: once by each of the first two commands, of which the first has left nothing.
    """
    for step in ("prove_and_prepare", "commit"):
        send(kafka, step)

        def die(*_: Any, **__: Any) -> None:
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(command, step, die)
            with pytest.raises(SystemExit):
                run(config(path), ids=a_command(path, folder))
        run(config(path), ids=a_command(path, folder))
    assert failures(path) == []
    send(kafka, "new")
    run(config(path), ids=a_command(path, folder))
    assert ids(path) == sorted(set("prove_and_preparecommitnew"))
    # One file that the others are on top of, and no leftover of the runs that died.
    assert sum(file.stem.endswith("-begin") for file in folder.iterdir()) <= 1
    assert len(asked) == 2


def test_the_same_command_goes_on_with_what_it_has_where_its_files_could_not_be_written(
    kafka: InMemoryKafka,
    path: Path,
    folder: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError("the store is full")

    here = a_command(path, folder)
    send(kafka, "abc")
    with monkeypatch.context() as patch:
        patch.setattr(id_files.FileSystems, "create", staticmethod(full))
        run(config(path), ids=here)
    assert list(folder.iterdir()) == []
    before = len(asked)
    send(kafka, "ad")
    run(config(path, shards=8), ids=here)
    assert len(asked) == before
    assert failures(path) == []


def test_without_a_folder_each_worker_asks_and_the_command_says_so(
    kafka: InMemoryKafka, path: Path, asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    here = IdsBetweenRuns(None, workers_here=False)
    with caplog.at_level(logging.INFO):
        for sent in ("abc", "ad"):
            send(kafka, sent)
            run(config(path, shards=8), ids=here)
    assert caplog.text.count(SAID) == 1
    # Here all workers are one process. The command has asked for the first run alone.
    assert len(asked) == 3
    assert failures(path) == []


def test_a_store_that_is_away_costs_queries_and_nothing_else(
    kafka: InMemoryKafka,
    path: Path,
    folder: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: Any) -> Any:
        raise OSError("no route to the store")

    monkeypatch.setattr(id_files.FileSystems, "exists", staticmethod(fails))
    for sent in ("abc", "ad"):
        send(kafka, sent)
        run(config(path, shards=8), ids=a_command(path, folder))
    assert ids(path) == list("abcd")
    assert failures(path) == []


def test_a_run_that_is_tried_again_begins_with_the_files(
    kafka: InMemoryKafka, path: Path, folder: Path, asked: list[str], monkeypatch: Any
) -> None:
    here = a_command(path, folder)
    send(kafka, "abc")
    run(config(path), ids=here)

    def away(*_: Any, **__: Any) -> None:
        raise TryAgainLater("the ledger does not answer")

    before = len(asked)
    send(kafka, "ad")
    with monkeypatch.context() as patch:
        patch.setattr(command, "prove_and_prepare", away)
        with pytest.raises(TryAgainLater):
            run(config(path, shards=8), ids=here)
    run(config(path, shards=8), ids=here)
    assert len(asked) == before
    assert failures(path) == []


def test_a_repair_leaves_nothing_behind_although_it_has_laid_out_ids(
    kafka: InMemoryKafka,
    path: Path,
    folder: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has judged c by its payment alone; the tables know c by its later, visible duplicate."""
    here, late_us = a_command(path, folder), NOW_US + HOUR_US - MINUTE_US

    def die(*_: Any, **__: Any) -> None:
        raise SystemExit

    kafka.send("payments", 0, payment("a"))
    run(config(path), ids=here)
    kafka.send("payments", 0, payment("c", NOW_US - 3 * MINUTE_US), payment("c", NOW_US))
    with monkeypatch.context() as patch:
        patch.setattr(command, "commit", die)
        with pytest.raises(SystemExit):
            run(config(path), ids=here)
    with DuckDBDestination(str(path)) as destination:
        for table in destination.runs.read()[-1].tables:
            if table.table == DUPLICATES:
                destination.streams.commit(table.table, table.commit_groups[0])
    expire(path, "table_name = 'payment_transactions'")
    run(config(path), ids=here)
    assert (ids(path), ids(path, COPIES)) == (["a", "c"], ["c"])
    before = len(asked)
    # The watermark passes the payment of c, and not yet its duplicate.
    for partition, transaction_id in enumerate("de"):
        kafka.send("payments", partition, payment(transaction_id, late_us))
    run(config(path), late_us, ids=here)
    after = len(asked)
    kafka.send("payments", 0, payment("c", NOW_US - MINUTE_US // 2))
    run(config(path), late_us, ids=here)
    assert (ids(path), ids(path, COPIES)) == (list("acde"), ["c", "c"])
    assert failures(path) == []
    assert after == before + 1


def test_what_a_command_keeps_follows_where_its_workers_are(path: Path) -> None:
    assert KeptBetweenRuns(config(path)).ids.workers_here
    assert not KeptBetweenRuns(config(path, workers_here=False)).ids.workers_here
