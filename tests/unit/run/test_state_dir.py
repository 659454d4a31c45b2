"""--state_dir: where a process begins with the ids that another one has left in files, and where it
loads them from the tables. Each beginning is held against the tables.
"""

from __future__ import annotations

import logging
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.auth.exceptions import TransportError

from pipeline.check.result import FAILED
from pipeline.options.run_config import run_config
from pipeline.preflight import preflight
from pipeline.run import command, prepare
from pipeline.run.kept import KeptBetweenRuns
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment, run
from tests.support.remembered_ids import ComparedWithTables
from tests.support.whole_runs import COPIES, failures, ids
from transforms.deduplicate import id_files
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError

pytestmark = pytest.mark.usefixtures("one_topic")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ids"


@pytest.fixture
def one_run(kafka: InMemoryKafka, path: Path, folder: Path) -> Callable[..., ComparedWithTables]:
    """Sends ids and runs, as a new process."""

    def process(*sent: str, machine: Path = folder, now_us: int = NOW_US) -> ComparedWithTables:
        kafka.send("payments", 0, *(payment(each, now_us) for each in sent))
        found = ComparedWithTables(f"duckdb:{path}", machine)
        run(config(path), now_us, ids=found)
        return found

    return process


def test_a_new_process_begins_with_the_files(
    one_run: Callable[..., ComparedWithTables], path: Path, folder: Path
) -> None:
    first = one_run("a", "b")
    assert (first.loaded, first.read) == (1, 0)
    for number in range(12):
        later = one_run(f"later {number}", "a")
        assert (later.loaded, later.read) == (0, 1)
    assert len(ids(path)) == 14
    assert ids(path, COPIES) == ["a"] * 12
    assert failures(path) == []
    # Each run has written one, and what is not needed any more is gone.
    assert 1 <= len(list(folder.iterdir())) <= 4


def test_the_files_are_small_and_few_where_little_comes_on_top_of_much(
    one_run: Callable[..., ComparedWithTables], folder: Path
) -> None:
    one_run(*map(str, range(400)))
    base = next(folder.iterdir()).stat().st_size
    assert base < 400 * 11 + 64 * 60
    for number in range(40):
        assert one_run(f"later {number}").read == 1
        assert len(list(folder.iterdir())) <= 7
    newest = max(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert newest.stat().st_size < base


@pytest.mark.parametrize("how", ["removed", "cut", "changed", "of another destination"])
def test_what_cannot_be_used_is_said_and_the_tables_are_asked(
    one_run: Callable[..., ComparedWithTables],
    path: Path,
    folder: Path,
    how: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    one_run("a")
    (file,) = folder.iterdir()
    content = file.read_bytes()
    if how == "removed":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[:-1])
    elif how == "changed":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    else:
        file.write_bytes(content.replace(b"payments.duckdb", b"paymentz.duckdb"))
    with caplog.at_level(logging.INFO):
        assert one_run("a", "b").loaded == 1
    assert "the ids are loaded from the tables: " in caplog.text
    assert (ids(path), ids(path, COPIES)) == (["a", "b"], ["a"])
    assert one_run("b").read == 1


def test_two_machines_that_take_turns_notice_each_other(
    one_run: Callable[..., ComparedWithTables], path: Path, tmp_path: Path
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    one_run("a", machine=here)
    assert one_run("b", machine=there).loaded == 1
    assert one_run("a", "b", machine=here).loaded == 1
    assert one_run("a", machine=here).read == 1
    assert (ids(path), ids(path, COPIES)) == (["a", "b"], ["a", "a", "b"])


def test_the_file_of_a_run_that_was_never_claimed_is_read_by_none(
    kafka: InMemoryKafka,
    path: Path,
    folder: Path,
    one_run: Callable[..., ComparedWithTables],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its ids have no payment. The same process goes on, and so does a new one."""
    process = one_run("a")
    kafka.send("payments", 0, payment("b"))

    def refuse(*_: object) -> None:
        raise TryAgainLater("the ledger does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "prepare", refuse)
        with pytest.raises(TryAgainLater):
            run(config(path), ids=process)
    assert len(list(folder.iterdir())) == 2
    run(config(path), ids=process)
    assert (process.loaded, process.used) == (1, 2)
    assert ids(path) == ["a", "b"]
    assert one_run("b").read == 1
    assert ids(path, COPIES) == ["b"]


def test_the_file_of_a_run_that_another_process_finished_counts(
    kafka: InMemoryKafka,
    path: Path,
    one_run: Callable[..., ComparedWithTables],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process = one_run("a")
    kafka.send("payments", 0, payment("b"))

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(command, "commit", die)
        with pytest.raises(SystemExit):
            run(config(path), ids=process)
    assert one_run("a", "b").read == 1
    assert (ids(path), ids(path, COPIES)) == (["a", "b"], ["a", "b"])


def test_a_file_that_another_machine_removes_while_it_is_opened(
    kafka: InMemoryKafka, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One shared --state_dir: the other one has committed the run behind, and removes files."""
    folder = tmp_path / "ids"
    kafka.send("payments", 0, payment("a"))
    run(config(path), ids=ComparedWithTables(f"duckdb:{path}", folder))
    kafka.send("payments", 0, *map(payment, "ab"))
    original = id_files.FileSystems.exists

    def exists(name: str) -> bool:
        found = original(name)
        if found and name.endswith(".ids"):
            Path(name).unlink(missing_ok=True)
        return found

    monkeypatch.setattr(id_files.FileSystems, "exists", staticmethod(exists))
    again = ComparedWithTables(f"duckdb:{path}", folder)
    run(config(path), ids=again)
    assert again.loaded == 1
    assert (ids(path), ids(path, COPIES)) == (["a", "b"], ["a"])


def test_an_old_event_time_in_the_first_run_costs_the_next_process_no_memory(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    """1970 takes 240 MB; 0001-01-01, the zero time of Go and .NET, 8.5 GB."""
    folder = tmp_path / "ids"
    zero_time = payment("zero").replace(b"2026", b"1970")
    assert b"1970" in zero_time
    kafka.send("payments", 0, payment("a"), zero_time)
    run(config(path), ids=ComparedWithTables(f"duckdb:{path}", folder))
    assert ids(path) == ["a", "zero"]
    kafka.send("payments", 0, payment("b"))
    again = ComparedWithTables(f"duckdb:{path}", folder)
    tracemalloc.start()
    try:
        run(config(path), ids=again)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert again.read == 1
    assert peak < 100 << 20


def test_the_folder_is_removed_while_a_run_reads(
    kafka: InMemoryKafka, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docs/operations.md: 'To remove that folder costs time, nothing else.'"""
    folder, original = tmp_path / "ids", command.read_and_write

    def removed(*given: Any) -> None:
        original(*given)
        shutil.rmtree(folder)

    monkeypatch.setattr(command, "read_and_write", removed)
    kafka.send("payments", 0, payment("a"))
    run(config(path), ids=ComparedWithTables(f"duckdb:{path}", folder))
    assert ids(path) == ["a"]


def test_an_error_while_old_files_are_looked_for_does_not_fail_a_run_that_is_committed(
    kafka: InMemoryKafka, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> Any:
        raise OSError("503 from the object store")

    monkeypatch.setattr(id_files.FileSystems, "match", staticmethod(fails))
    kafka.send("payments", 0, payment("a"))
    remembered = ComparedWithTables(f"duckdb:{path}", tmp_path / "ids")
    run(config(path), ids=remembered)
    assert ids(path) == ["a"]
    kafka.send("payments", 0, payment("a"))
    run(config(path), ids=remembered)
    assert ids(path, COPIES) == ["a"]


def test_a_file_that_cannot_be_written_costs_the_next_process_time_and_nothing_else(
    kafka: InMemoryKafka,
    path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError("the store is full")

    process = ComparedWithTables(f"duckdb:{path}", folder)
    kafka.send("payments", 0, payment("a"))
    with monkeypatch.context() as patch:
        patch.setattr(id_files.FileSystems, "create", staticmethod(full))
        run(config(path), ids=process)
        kafka.send("payments", 0, payment("a"))
        run(config(path), ids=process)
    assert "the ids are not kept for the next process" in caplog.text
    kafka.send("payments", 0, payment("a"))
    again = ComparedWithTables(f"duckdb:{path}", folder)
    run(config(path), ids=again)
    assert (process.loaded, process.used, again.loaded) == (1, 1, 1)
    assert (ids(path), ids(path, COPIES)) == (["a"], ["a"] * 2)


@pytest.mark.parametrize("folder", ["ids*", "ids?", "[ids]"])
def test_a_folder_that_would_be_a_pattern_is_refused_and_not_chosen(folder: str) -> None:
    usual = ["--bootstrap_servers=k:9092", "--topic=payments"]
    assert run_config([*usual, f"--destination=duckdb:{folder}.duckdb"]).state_dir is None
    with pytest.raises(UsageError, match="must not contain"):
        run_config([*usual, "--destination=duckdb:p.duckdb", f"--state_dir={folder}"])


@pytest.mark.parametrize("name", ["file", "file/ids"])
def test_a_folder_that_cannot_be_is_refused_before_anything_is_looked_at(
    name: str, path: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    refused = config(path, state_dir=str(tmp_path / name))
    with pytest.raises(UsageError, match=r"--state_dir=.*/file is no folder that can be written"):
        KeptBetweenRuns(refused)
    found = {result.name: result for result in preflight(refused)}
    assert found["--state_dir"].status == FAILED
    KeptBetweenRuns(config(path, state_dir=str(tmp_path / "new" / "ids")))


@pytest.mark.parametrize("error", [TransportError("no credentials"), OSError("no route")])
def test_a_store_that_does_not_answer_costs_time_and_nothing_else(
    error: Exception,
    kafka: InMemoryKafka,
    path: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fails(_: Any) -> Any:
        raise error

    process = ComparedWithTables(f"duckdb:{path}", folder)
    with monkeypatch.context() as patch:
        patch.setattr(id_files.FileSystems, "exists", staticmethod(fails))
        for _ in range(2):
            kafka.send("payments", 0, payment("a"))
            run(config(path), ids=process)
    assert (ids(path), ids(path, COPIES)) == (["a"], ["a"])
    assert f"--state_dir={folder}: ids are loaded from the tables: {error}" in caplog.text
    # It answers again.
    kafka.send("payments", 0, payment("a"))
    run(config(path), ids=process)
    assert list(folder.iterdir()) != []


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--destination=duckdb:p.duckdb"], "p.duckdb.ids"),
        (["--destination=duckdb:p.duckdb", "--state_dir=none"], None),
        (["--destination=duckdb:p.duckdb", "--state_dir=None"], None),
        (["--destination=duckdb:p.duckdb", "--state_dir=gs://b/ids"], "gs://b/ids"),
        (["--destination=bigquery:project.dataset"], None),
    ],
)
def test_the_folder_is_beside_a_duckdb_file(flags: list[str], expected: str | None) -> None:
    usual = ["--bootstrap_servers=k:9092", "--topic=payments"]
    assert run_config([*usual, *flags]).state_dir == expected


def test_an_empty_folder_is_refused() -> None:
    flags = ["--bootstrap_servers=k:9092", "--topic=payments", "--destination=duckdb:p.duckdb"]
    with pytest.raises((UsageError, GuaranteeError), match="--state_dir=: must be the path"):
        run_config([*flags, "--state_dir="])
