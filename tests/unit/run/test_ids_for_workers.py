"""Workers in other processes: the command asks the tables once, and lays the ids in --state_dir."""

from __future__ import annotations

import logging
from collections.abc import Callable
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
)
from tests.support.remembered_ids import in_another_process
from tests.support.whole_runs import COPIES, expire, failures, ids
from transforms.deduplicate import id_files, known_ids
from transforms.deduplicate.id_files import IdFiles
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import TryAgainLater
from transforms.model.tables import DUPLICATES

Runs = Callable[..., list[RunRecord]]

SAID = "each worker process asks the tables"


@pytest.fixture
def kafka(kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch) -> InMemoryKafka:
    """Step 3 knows nothing of what the command knows, as a process of its own would."""
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
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ids"


def a_command(path: Path, folder: Path) -> IdsBetweenRuns:
    return IdsBetweenRuns(IdFiles(str(folder), f"duckdb:{path}"), workers_here=False)


@pytest.fixture
def one_run(kafka: InMemoryKafka, path: Path, folder: Path) -> Runs:
    """Sends ids to both partitions, and runs as a new command, or as the one that is given."""

    def sent_and_run(
        transaction_ids: str, command: IdsBetweenRuns | None = None, shards: int = 4
    ) -> list[RunRecord]:
        for partition in range(2):
            kafka.send("payments", partition, *map(payment, transaction_ids))
        return run(config(path, shards=shards), ids=command or a_command(path, folder))

    return sent_and_run


def test_they_are_asked_once_however_many_shards_there_are(
    one_run: Runs, path: Path, asked: list[str]
) -> None:
    for sent in ("abc", "ad", "be"):
        one_run(sent, shards=8)
        # The first run has left its ids in files.
        assert len(asked) == 1
    assert ids(path) == list("abcde")
    assert failures(path) == []


def test_files_that_are_lost_are_laid_out_anew(
    one_run: Runs, path: Path, folder: Path, asked: list[str]
) -> None:
    one_run("abc")
    for file in folder.iterdir():
        file.unlink()
    (record,) = one_run("ad", shards=8)
    assert asked[1:] == [record.run_id]
    assert sorted(file.stem for file in folder.iterdir()) == [
        record.run_id,
        f"{record.run_id}-begin",
    ]
    one_run("ab", shards=8)
    assert len(asked) == 2
    assert (ids(path), sorted(set(ids(path, COPIES)))) == (list("abcd"), list("abcd"))
    assert failures(path) == []


def test_what_a_run_that_died_has_laid_out_is_read_by_none(
    one_run: Runs, path: Path, folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the claim, and behind it, where the next command finishes the run.

    Asked: once by each of the first two commands, of which the first has left nothing.
    """
    for step in ("prove_and_prepare", "commit"):

        def die(*_: Any, **__: Any) -> None:
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(command, step, die)
            with pytest.raises(SystemExit):
                one_run(step)
        one_run("")
    assert failures(path) == []
    one_run("new")
    assert ids(path) == sorted(set("prove_and_preparecommitnew"))
    # One file that the others are on top of, and no leftover of the runs that died.
    assert sum(file.stem.endswith("-begin") for file in folder.iterdir()) <= 1
    assert len(asked) == 2


def test_the_same_command_goes_on_with_what_it_has_where_its_files_could_not_be_written(
    one_run: Runs, path: Path, folder: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError("the store is full")

    here = a_command(path, folder)
    with monkeypatch.context() as patch:
        patch.setattr(id_files.FileSystems, "create", staticmethod(full))
        one_run("abc", here)
    assert list(folder.iterdir()) == []
    before = len(asked)
    one_run("ad", here, shards=8)
    assert len(asked) == before
    assert failures(path) == []


def test_without_a_folder_each_worker_asks_and_the_command_says_so(
    one_run: Runs, path: Path, asked: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    here = IdsBetweenRuns(None, workers_here=False)
    with caplog.at_level(logging.INFO):
        for sent in ("abc", "ad"):
            one_run(sent, here, shards=8)
    assert caplog.text.count(SAID) == 1
    # Here all workers are one process. The command has asked for the first run alone.
    assert len(asked) == 3
    assert failures(path) == []


def test_a_store_that_is_away_costs_queries_and_nothing_else(
    one_run: Runs, path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    def fails(*_: Any) -> Any:
        raise OSError("no route to the store")

    monkeypatch.setattr(id_files.FileSystems, "exists", staticmethod(fails))
    for sent in ("abc", "ad"):
        one_run(sent, shards=8)
    assert ids(path) == list("abcd")
    assert failures(path) == []


def test_a_run_that_is_tried_again_begins_with_the_files(
    one_run: Runs, path: Path, folder: Path, asked: list[str], monkeypatch: Any
) -> None:
    here = a_command(path, folder)
    one_run("abc", here)

    def away(*_: Any, **__: Any) -> None:
        raise TryAgainLater("the ledger does not answer")

    before = len(asked)
    with monkeypatch.context() as patch:
        patch.setattr(command, "prove_and_prepare", away)
        with pytest.raises(TryAgainLater):
            one_run("ad", here, shards=8)
    one_run("", here, shards=8)
    assert len(asked) == before
    assert failures(path) == []


def test_a_repair_leaves_nothing_behind_although_it_has_laid_out_ids(
    one_run: Runs,
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
    one_run("", here)
    kafka.send("payments", 0, payment("c", NOW_US - 3 * MINUTE_US), payment("c", NOW_US))
    with monkeypatch.context() as patch:
        patch.setattr(command, "commit", die)
        with pytest.raises(SystemExit):
            one_run("", here)
    with DuckDBDestination(str(path)) as destination:
        for table in destination.runs.read()[-1].tables:
            if table.table == DUPLICATES:
                destination.streams.commit(table.table, table.commit_groups[0])
    expire(path, "table_name = 'payment_transactions'")
    one_run("", here)
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
