import pickle
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from pipeline.options.schema_file import load_schema
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import ROOT
from tests.unit.destinations.contract.run_ledger import LedgerContract, record
from tests.unit.destinations.contract.tables import TablesContract
from tests.unit.destinations.contract.write_streams import Contract, rows, visible
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS
from transforms.destinations.contract.write_streams import (
    COMMITTED_STREAM,
    PENDING_STREAM,
    DifferentRows,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamNotFound,
)
from transforms.destinations.duckdb import in_flight, open_files, streams
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.open_files import acquire, release
from transforms.destinations.duckdb.tables import APPENDS, REPORTS, STREAMS
from transforms.destinations.duckdb.views import VIEWS
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError, UsageError
from transforms.model.schema import PaymentSchema, SchemaField
from transforms.model.tables import DUPLICATES, GAPS, PAYMENTS, REJECTED, RUNS

SCHEMA = load_schema(None)


class TestDuckDBTables(TablesContract):
    @pytest.fixture
    def without_tables(self, tmp_path: Path) -> Iterator[DuckDBDestination]:
        with DuckDBDestination(str(tmp_path / "test.duckdb")) as destination:
            yield destination


class TestDuckDB(Contract, LedgerContract):
    def execute(self, destination: DuckDBDestination, sql: str) -> None:
        destination.session.cursor().execute(sql)


def test_other_rows_at_a_known_offset_are_an_error_of_their_own(
    destination: DuckDBDestination,
) -> None:
    stream = destination.streams.create(GAPS)
    destination.streams.send(stream, 0, rows(1, 2)).wait()
    with pytest.raises(DifferentRows):
        destination.streams.send(stream, 0, rows(1, 3)).wait()


def test_the_same_offset_twice_in_flight_is_told_like_any_other(
    destination: DuckDBDestination,
) -> None:
    stream = destination.streams.create(GAPS, COMMITTED_STREAM)
    written, same, other = (
        destination.streams.send(stream, 0, rows(*numbers)) for numbers in ((1,), (1,), (2,))
    )
    assert written.wait() == 1
    with pytest.raises(OffsetAlreadyExists) as told:
        same.wait()
    assert not isinstance(told.value, DifferentRows)
    with pytest.raises(DifferentRows):
        other.wait()
    assert visible(destination) == [1]


def test_an_append_behind_a_gap_is_refused_and_the_one_that_fits_is_not(
    destination: DuckDBDestination,
) -> None:
    stream = destination.streams.create(GAPS, COMMITTED_STREAM)
    destination.streams.send(stream, 0, rows(1)).wait()
    gap = destination.streams.send(stream, 2, rows(3))
    good = destination.streams.send(stream, 1, rows(2))
    with pytest.raises(OffsetOutOfRange):
        gap.wait()
    assert good.wait() == 2
    assert visible(destination) == [1, 2]


def test_what_a_thread_has_in_flight_is_one_transaction_and_no_other_thread_writes_it(
    destination: DuckDBDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    write = in_flight.write
    monkeypatch.setattr(
        in_flight, "write", lambda cursor, all_: written.append(len(all_)) or write(cursor, all_)
    )
    kinds = COMMITTED_STREAM, COMMITTED_STREAM, PENDING_STREAM
    streams = [destination.streams.create(GAPS, kind) for kind in kinds]
    first, second, _ = (
        destination.streams.send(stream, 0, rows(number)) for number, stream in enumerate(streams)
    )
    third = destination.streams.create(GAPS, COMMITTED_STREAM)
    with ThreadPoolExecutor(1) as other:
        other.submit(lambda: destination.streams.send(third, 0, rows(9)).wait()).result()
    assert (written, visible(destination)) == ([1], [9])
    assert (second.wait(), first.wait()) == (1, 1)
    assert (written, visible(destination)) == ([1, 3], [0, 1, 9])
    destination.streams.send(streams[0], 1, rows(2)).wait()
    assert written == [1, 3, 1]


def test_what_no_thread_waits_for_is_not_written(destination: DuckDBDestination) -> None:
    stream = destination.streams.create(GAPS, COMMITTED_STREAM)
    destination.streams.send(stream, 0, rows(1))
    assert visible(destination) == []
    assert destination.streams.finalize(stream) == 0


def test_a_transaction_that_fails_writes_nothing_and_the_next_wait_tries_again(
    destination: DuckDBDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (destination.streams.create(GAPS, COMMITTED_STREAM) for _ in range(2))
    sent = [destination.streams.send(stream, 0, rows(1)) for stream in (first, second)]
    insert = in_flight.insert

    def fails_behind(*arguments: Any) -> None:
        insert(*arguments)
        raise OSError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="the disk is full"):
        patch.setattr(in_flight, "insert", fails_behind)
        sent[0].wait()
    assert visible(destination) == []
    assert [append.wait() for append in sent] == [1, 1]
    assert visible(destination) == [1, 1]


def test_pending_rows_survive_the_process_and_are_discarded_by_recovery(tmp_path: Path) -> None:
    path = str(tmp_path / "test.duckdb")
    with DuckDBDestination(path) as dying:
        dying.tables.create(SCHEMA)
        kept, left = dying.streams.create(GAPS), dying.streams.create(GAPS)
        dying.streams.send(kept, 0, rows(1)).wait()
        dying.streams.send(left, 0, rows(2)).wait()
        dying.streams.finalize(kept)
    with DuckDBDestination(path) as recovering:
        assert recovering.streams.discard(keep=[kept]) == 1
        with pytest.raises(StreamNotFound):
            recovering.streams.send(left, 1, rows(3)).wait()
        recovering.streams.commit(GAPS, [kept])
        assert visible(recovering) == [1]
        assert recovering.streams.discard(keep=[]) == 0


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


def test_ids_of_payments_are_not_compressed(destination: DuckDBDestination) -> None:
    found = destination.session.cursor().execute(
        "SELECT table_name, sql FROM duckdb_tables() WHERE sql ILIKE"
        " '%transaction_id VARCHAR USING COMPRESSION uncompressed%'"
    )
    assert {table for table, _ in found.fetchall()} == {PAYMENTS, DUPLICATES, REJECTED}


def test_reports_are_discarded_by_recovery(destination: DuckDBDestination) -> None:
    destination.reports.save("run-1", "a", [b"3"])
    destination.reports.discard(None)
    assert destination.reports.read("run-1") == {}


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


@pytest.mark.parametrize("name", ["memory", "temp", "system", 'it\'s "mine".v1', "main"])
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


def test_a_claim_that_cannot_be_written_is_no_race_that_was_lost(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with DuckDBDestination(str(tmp_path / "test.duckdb")) as destination:
        destination.tables.create(SCHEMA)
        assert destination.runs.claim(record(GENESIS, None, COMMITTED))
        big = record("run-1", GENESIS, COMMITTED)
        big = msgspec.structs.replace(big, settings={"padding": "x" * 3_000_000})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
            with pytest.raises(duckdb.TransactionException, match="File too large"):
                destination.runs.claim(big)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [each.run_id for each in destination.runs.read()] == [GENESIS]
        assert destination.runs.claim(record("run-1", GENESIS, COMMITTED))


@pytest.mark.parametrize("name", ["information_schema", "PG_Catalog", "memory", "temp", "main"])
def test_a_file_may_have_any_name(name: str, tmp_path: Path) -> None:
    for _ in range(2):
        with DuckDBDestination(str(tmp_path / f"{name}.duckdb")) as destination:
            destination.tables.create(SCHEMA)
            assert visible(destination) == []


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


def test_the_schema_may_gain_nullable_columns_and_nothing_else(
    destination: DuckDBDestination,
) -> None:
    def with_column(
        schema: PaymentSchema, name: str, kind: str, mode: str = "NULLABLE"
    ) -> PaymentSchema:
        return replace(schema, fields=(*schema.fields, SchemaField(name, name, kind, mode)))

    more = with_column(SCHEMA, "channel", "STRING")
    destination.tables.create(more)
    destination.tables.create(more)
    destination.tables.create(SCHEMA)  # the ledger says whether the column is binding
    columns = destination.query("DESCRIBE payment_transactions").column("column_name")
    assert "channel" in columns.to_pylist()
    with pytest.raises(GuaranteeError, match="no column risk"):
        destination.tables.create(with_column(more, "risk", "INT64", "REQUIRED"))
    with pytest.raises(
        GuaranteeError, match="column channel is VARCHAR, but the schema says BIGINT"
    ):
        destination.tables.create(with_column(SCHEMA, "channel", "INT64"))


@pytest.mark.parametrize(
    "change",
    [
        *(f"DROP TABLE {table}" for table in (PAYMENTS, GAPS, RUNS, STREAMS, APPENDS, REPORTS)),
        f"ALTER TABLE {REJECTED} DROP COLUMN payload",
        *(f"DROP VIEW {view}" for view in VIEWS),
    ],
)
def test_what_another_process_takes_away_is_created_again(
    change: str, destination: DuckDBDestination
) -> None:
    destination.tables.create(SCHEMA)
    before = destination.tables._existing()
    destination.session.cursor().execute(change)
    destination.tables.create(SCHEMA)
    after = destination.tables._existing()
    assert {name: set(columns.items()) for name, columns in after.items()} == {
        name: set(columns.items()) for name, columns in before.items()
    }


def test_a_column_whose_type_another_process_changes_is_refused(
    destination: DuckDBDestination,
) -> None:
    destination.tables.create(SCHEMA)
    destination.session.cursor().execute(f"ALTER TABLE {DUPLICATES} ALTER amount TYPE DOUBLE")
    with pytest.raises(GuaranteeError, match="column amount is DOUBLE"):
        destination.tables.create(SCHEMA)


@pytest.mark.parametrize("url", ["duckdb:", "payments.duckdb", "sqlite:a.db", ""])
def test_what_is_no_destination_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="allowed are duckdb:PATH"):
        open_destination(url)
