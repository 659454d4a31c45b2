"""The files of DuckDB that a process has open, and the instance that is kept without one."""

import pickle
import random
import resource
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from pipeline.options.schema_file import load_schema
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import ROOT
from tests.unit.destinations.contract.write_streams import rows, visible
from transforms.destinations.contract.write_streams import COMMITTED_STREAM
from transforms.destinations.duckdb import open_files, streams
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.open_files import acquire, release
from transforms.destinations.duckdb.tables import REPORTS
from transforms.destinations.duckdb.views import VIEWS
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS

SCHEMA = load_schema(None)


def threads(connection: duckdb.DuckDBPyConnection) -> int:
    ((found,),) = connection.execute("SELECT current_setting('threads')").fetchall()
    return int(found)


def test_only_questions_and_commits_of_many_rows_run_on_all_cores(
    destination: DuckDBDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    with duckdb.connect() as anywhere:
        cores = threads(anywhere)
    cursor = destination.session.cursor()
    monkeypatch.setattr(streams, "_MANY_ROWS", 2)
    for numbers, expected in (([1], 1), ([2, 3], cores)):
        pending = destination.streams.create(GAPS)
        destination.streams.send(pending, 0, rows(*numbers)).wait()
        destination.streams.finalize(pending)
        destination.streams.commit(GAPS, [pending])
        assert threads(cursor) == expected
    committed = destination.streams.create(GAPS, COMMITTED_STREAM)
    for offset in range(2):
        destination.streams.send(committed, offset, rows(4 + offset)).wait()
        assert threads(cursor) == 1
        assert visible(destination) == [1, 2, 3, *range(4, 5 + offset)]
        assert threads(cursor) == 1, "the next append would wait for a question in another thread"


def test_nested_use_keeps_the_file_open_and_the_last_one_closes_it(tmp_path: Path) -> None:
    path = str(tmp_path / "test.duckdb")
    outer, inner = DuckDBDestination(path), pickle.loads(pickle.dumps(DuckDBDestination(path)))
    with outer:
        outer.tables.create(SCHEMA)
        with inner:
            stream = inner.streams.create(GAPS)
        assert outer.streams.finalize(stream) == 0
    assert not duckdb_is_open(path)


def duckdb_is_open(path: str) -> bool:
    from transforms.destinations.duckdb.open_files import _OPEN

    return path in _OPEN


def test_a_file_that_another_process_holds_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "test.duckdb")
    code = (
        f"import duckdb, sys; c = duckdb.connect({path!r});"
        " print('open', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        ending_with_this_process([sys.executable, "-c", code]),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    ticks = iter(range(100))
    with pytest.raises(GuaranteeError, match=f"process {holder.pid} has the file open"):
        acquire(path, clock=lambda: next(ticks), sleep=lambda _: None)

    def let_go(_: float) -> None:
        holder.stdin.close()
        holder.wait(30)

    release(acquire(path, clock=lambda: 0.0, sleep=let_go))


@pytest.mark.parametrize(
    "name",
    ["memory", "temp", "system", 'it\'s "mine".v1', "main", "information_schema", "PG_Catalog"],
)
def test_a_file_has_any_name_and_is_opened_again(tmp_path: Path, name: str) -> None:
    """DuckDB calls databases of its own by some of these names."""
    path = str(tmp_path / f"{name}.duckdb")
    for known in ([], ["run-1"]):
        with DuckDBDestination(path) as destination:
            destination.tables.create(SCHEMA)
            assert list(destination.reports.read("run-1")) == ["a"] * len(known)
            destination.reports.discard(None)
            destination.reports.save("run-1", "a", [b"1"])
        assert not duckdb_is_open(path)
    with duckdb.connect(path) as analyst:
        for view in VIEWS:
            assert analyst.execute(f"SELECT * FROM {view}").fetchall() == []
        ticks = iter(range(100))
        with pytest.raises(GuaranteeError, match="another connection of this process has the file"):
            acquire(path, clock=lambda: next(ticks), sleep=lambda _: None)


def test_two_files_of_one_name_are_open_at_once(tmp_path: Path) -> None:
    for folder in ("a", "b", "a"):
        (tmp_path / folder).mkdir(exist_ok=True)
    with (
        DuckDBDestination(str(tmp_path / "a" / "x.duckdb")) as one,
        DuckDBDestination(str(tmp_path / "b" / "x.duckdb")) as other,
    ):
        for destination in (one, other):
            destination.tables.create(SCHEMA)
        one.reports.save("run-1", "a", [b"1"])
        assert (one.reports.read("run-1"), other.reports.read("run-1")) == ({"a": [b"1"]}, {})


def test_what_is_not_committed_when_a_file_is_closed_never_is(tmp_path: Path) -> None:
    """It may belong to a thread that has outlived its run."""
    path = str(tmp_path / "test.duckdb")
    with DuckDBDestination(path) as destination:
        destination.tables.create(SCHEMA)
        cursor = destination.session.cursor()
        cursor.begin()
        destination.reports.save("run-1", "a", [b"1"])
    with DuckDBDestination(path) as destination:
        for change in (cursor.commit, lambda: cursor.execute(f"DELETE FROM {REPORTS}")):
            with pytest.raises(duckdb.ConnectionException, match="already closed"):
                change()
        assert destination.reports.read("run-1") == {}


def test_an_append_takes_no_cores_from_a_question_of_another_thread(
    destination: DuckDBDestination,
) -> None:
    cursor = destination.session.cursor()
    stream = destination.streams.create(GAPS, COMMITTED_STREAM)
    with duckdb.connect() as anywhere:
        cores = threads(anywhere)
    with destination.session.on_all_threads(), ThreadPoolExecutor(1) as other:
        other.submit(lambda: destination.streams.send(stream, 0, rows(1)).wait()).result()
        assert threads(cursor) == cores
    destination.streams.send(stream, 1, rows(2)).wait()
    assert threads(cursor) == 1


def test_a_link_that_leads_elsewhere_meanwhile_closes_the_file_that_was_open(
    tmp_path: Path,
) -> None:
    link = tmp_path / "link.duckdb"
    link.symlink_to(tmp_path / "one.duckdb")
    with DuckDBDestination(str(link)) as destination:
        destination.tables.create(SCHEMA)
        link.unlink()
        link.symlink_to(tmp_path / "two.duckdb")
    assert not open_files._OPEN
    code = f"import duckdb; duckdb.connect({str(tmp_path / 'one.duckdb')!r}).execute('FROM {GAPS}')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_instance_is_kept_for_some_hundred_times_and_not_where_it_has_spilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "test.duckdb"
    made: list[str] = []
    new = open_files._new_instance
    monkeypatch.setattr(open_files, "_new_instance", lambda path: made.append(path) or new(path))
    monkeypatch.setattr(open_files, "_TIMES_KEPT", 3)

    def tick() -> None:
        with DuckDBDestination(str(path)) as destination:
            destination.tables.create(SCHEMA)

    for _ in range(8):
        tick()
    assert len(made) == 2
    (tmp_path / "test.duckdb.tmp").mkdir()
    tick()
    (tmp_path / "test.duckdb.tmp").rmdir()
    tick()
    assert len(made) == 4


def test_where_the_file_cannot_grow_the_first_error_is_told(tmp_path: Path) -> None:
    """Its log cannot be written to the file either; it is there when the file can grow again."""
    path = str(tmp_path / "test.duckdb")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    saved = 0
    with DuckDBDestination(path) as destination:
        destination.tables.create(SCHEMA)
        destination.reports.save("run-before", "a", [random.Random(2).randbytes(1_500_000)])
    try:
        with pytest.raises(duckdb.Error) as raised, DuckDBDestination(path) as destination:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
            while saved < 1000:
                destination.reports.save(f"run-{saved}", "a", [random.Random(1).randbytes(20_000)])
                saved += 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "DETACH" not in str(raised.value) and 0 < saved < 1000
    with DuckDBDestination(path) as destination:
        assert all(destination.reports.read(f"run-{number}") for number in range(saved))
