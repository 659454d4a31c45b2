import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.kafka_broker import ROOT, die_with_parent
from tests.unit.contract_write_streams import Contract, rows, visible
from transforms.destinations import open_destination
from transforms.destinations.duckdb import DuckDBDestination
from transforms.destinations.duckdb_session import acquire, release
from transforms.errors import GuaranteeError, UsageError
from transforms.run_record import ABORTED, COMMITTED, GENESIS, PREPARED, PartitionProgress, RunRecord, TableProgress
from transforms.schema import load_schema
from transforms.tables import GAPS, PAYMENTS
from transforms.write_streams import DifferentRows, StreamNotFound

FIELDS = load_schema(None).arrow_fields()


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[DuckDBDestination]:
    with DuckDBDestination(str(tmp_path / "test.duckdb")) as one:
        one.create_tables(FIELDS)
        yield one


def record(run_id: str, predecessor: str | None, status: str = PREPARED) -> RunRecord:
    part = PartitionProgress(
        topic="t",
        partition=0,
        topic_id="id",
        from_offset=0,
        to_offset=5,
        records=5,
        gap_offsets=0,
        coordinate_hash=(1 << 64) - 1,
        start_watermark=None,
        watermark=-5,
        position_since=7,
    )
    table = TableProgress(table=PAYMENTS, rows=5, commit_groups=[["a", "b"], ["c"]])
    return RunRecord(
        run_id=run_id,
        predecessor=predecessor,
        status=status,
        plan_time=1_790_000_000_123_456,
        cluster_id="cluster",
        partitions=[part],
        tables=[table],
        lowest_watermark=None,
        live_ids=5,
        state_bytes=50,
        settings={"dedup_key": "transaction_id", "schema": [{"name": "transaction_id"}]},
    )


class TestDuckDB(Contract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> Iterator[DuckDBDestination]:
        with DuckDBDestination(str(tmp_path / "test.duckdb")) as one:
            one.create_tables(FIELDS)
            yield one


def test_other_rows_at_a_known_offset_are_an_error_of_their_own(destination: DuckDBDestination) -> None:
    stream = destination.create_stream(GAPS)
    destination.send(stream, 0, rows(1, 2)).wait()
    with pytest.raises(DifferentRows):
        destination.send(stream, 0, rows(1, 3)).wait()


def test_pending_rows_survive_the_process_and_are_discarded_by_recovery(tmp_path: Path) -> None:
    path = str(tmp_path / "test.duckdb")
    with DuckDBDestination(path) as one:
        one.create_tables(FIELDS)
        kept, left = one.create_stream(GAPS), one.create_stream(GAPS)
        one.send(kept, 0, rows(1)).wait()
        one.send(left, 0, rows(2)).wait()
        one.finalize_stream(kept)
    with DuckDBDestination(path) as one:
        assert one.discard_streams(keep=[kept]) == 1
        with pytest.raises(StreamNotFound):
            one.send(left, 1, rows(3)).wait()
        one.commit_streams(GAPS, [kept])
        assert visible(one) == [1]
        assert one.discard_streams(keep=[]) == 0


def test_a_record_comes_back_as_it_was_written(destination: DuckDBDestination) -> None:
    genesis, first = record(GENESIS, None, COMMITTED), record("run-1", GENESIS)
    assert destination.claim_run(genesis)
    assert destination.claim_run(first)
    assert destination.read_runs() == [genesis, first]


def test_of_two_runs_from_one_predecessor_exactly_one_succeeds(destination: DuckDBDestination) -> None:
    assert destination.claim_run(record(GENESIS, None, COMMITTED))
    assert not destination.claim_run(record(GENESIS, None, COMMITTED))
    assert destination.claim_run(record("run-1", GENESIS))
    assert not destination.claim_run(record("run-2", GENESIS))
    assert [run.run_id for run in destination.read_runs()] == [GENESIS, "run-1"]


@pytest.mark.parametrize("predecessor", [None, GENESIS])
def test_of_many_threads_that_claim_at_once_exactly_one_succeeds(destination: DuckDBDestination, predecessor: str | None) -> None:
    if predecessor:
        assert destination.claim_run(record(GENESIS, None, COMMITTED))
    ready, won = threading.Barrier(8), []

    def claim(number: int) -> None:
        ready.wait()
        if destination.claim_run(record(f"run-{number}" if predecessor else GENESIS, predecessor)):
            won.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert len(destination.read_runs()) == (2 if predecessor else 1)


def test_a_run_becomes_committed_or_aborted_once(destination: DuckDBDestination) -> None:
    destination.claim_run(record(GENESIS, None, COMMITTED))
    destination.claim_run(record("run-1", GENESIS))
    destination.mark_run("run-1", COMMITTED)
    destination.mark_run("run-1", COMMITTED)
    with pytest.raises(GuaranteeError, match="COMMITTED, so it cannot become ABORTED"):
        destination.mark_run("run-1", ABORTED)
    with pytest.raises(GuaranteeError, match="not there"):
        destination.mark_run("run-9", COMMITTED)


def test_a_broken_chain_is_told(destination: DuckDBDestination) -> None:
    for run_id, predecessor in ((GENESIS, None), ("run-1", GENESIS), ("run-2", "run-1")):
        destination.claim_run(record(run_id, predecessor))
    destination._cursor().execute("DELETE FROM pipeline_runs WHERE run_id = 'run-1'")
    with pytest.raises(GuaranteeError, match="chain breaks behind genesis"):
        destination.read_runs()


def test_reports_are_kept_per_attempt_until_they_are_discarded(destination: DuckDBDestination) -> None:
    destination.save_reports("run-1", "b", [b"1", b"2"])
    destination.save_reports("run-1", "a", [b"3"])
    assert destination.read_reports("run-1") == {"a": [b"3"], "b": [b"1", b"2"]}
    destination.discard_reports(None)
    assert destination.read_reports("run-1") == {}


def test_nested_use_keeps_the_file_open_and_the_last_one_closes_it(tmp_path: Path) -> None:
    path = str(tmp_path / "test.duckdb")
    one, other = DuckDBDestination(path), pickle.loads(pickle.dumps(DuckDBDestination(path)))
    with one:
        one.create_tables(FIELDS)
        with other:
            stream = other.create_stream(GAPS)
        assert one.finalize_stream(stream) == 0
    assert not duckdb_is_open(path)


def duckdb_is_open(path: str) -> bool:
    from transforms.destinations.duckdb_session import _OPEN

    return path in _OPEN


def test_a_file_that_another_process_holds_is_waited_for_and_then_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "test.duckdb")
    code = f"import duckdb, sys; c = duckdb.connect({path!r}); print('open', flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent
    )
    assert holder.stdin is not None and holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    ticks = iter(range(100))
    with pytest.raises(GuaranteeError, match="another process has the file open"):
        acquire(path, clock=lambda: next(ticks), sleep=lambda _: None)

    def let_go(_: float) -> None:
        holder.stdin.close()
        holder.wait(30)

    acquire(path, clock=lambda: 0.0, sleep=let_go)
    release(path)


def test_the_schema_may_gain_nullable_columns_and_nothing_else(destination: DuckDBDestination) -> None:
    more = [*FIELDS, pa.field("channel", pa.string())]
    destination.create_tables(more)
    destination.create_tables(more)
    with pytest.raises(GuaranteeError, match="channel, which --schema does not name"):
        destination.create_tables(FIELDS)
    with pytest.raises(GuaranteeError, match="no column risk"):
        destination.create_tables([*more, pa.field("risk", pa.int64(), nullable=False)])
    with pytest.raises(GuaranteeError, match="column channel is VARCHAR, but the schema says BIGINT"):
        destination.create_tables([*FIELDS, pa.field("channel", pa.int64())])


@pytest.mark.parametrize("url", ["duckdb:", "bigquery:a.b", "payments.duckdb", ""])
def test_only_a_duckdb_path_is_a_destination(url: str) -> None:
    with pytest.raises(UsageError, match="allowed is duckdb:PATH"):
        open_destination(url)
