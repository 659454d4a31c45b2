"""WriteTotals as a runner drives it: which timers it sets, and what each of them closes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.options.schema_file import load_schema
from pipeline.streaming.records import fresh_id
from tests.support.in_memory_kafka import NOW_US
from tests.support.stateful_double import StatefulDouble
from transforms.destinations.appends import TableAppends
from transforms.destinations.contract.shard_ledger import Job
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.buckets import BUCKET_US
from transforms.model.coders import encode_rows
from transforms.model.tables import TOTALS_SCHEMA
from transforms.stream import write_totals as write_totals_module
from transforms.stream.close_totals import close_totals
from transforms.stream.errors import Superseded
from transforms.stream.polling import Polling
from transforms.stream.stop_on_error import StopOnError
from transforms.stream.write_totals import WriteTotals

FIRST_US = NOW_US // BUCKET_US * BUCKET_US
MINUTES = 100


def minute(number: int, records: int = 1) -> tuple[int, bytes]:
    """An element: what a shard says of the payments of one minute."""
    start = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(
        microseconds=FIRST_US + number * BUCKET_US
    )
    row = {
        "window_start": start, "outcome": "accepted", "currency": "EUR", "records": records,
        "amount": None, "checksum": 7,
    }  # fmt: skip
    return 0, encode_rows(pa.RecordBatch.from_pylist([row], schema=TOTALS_SCHEMA))


@pytest.fixture
def destination(path: Path) -> Iterator[DuckDBDestination]:
    with DuckDBDestination(path) as opened:
        opened.tables.create(load_schema(None))
        opened.shards.create(1)
        yield opened


@pytest.fixture
def job(destination: DuckDBDestination) -> Job:
    return destination.shards.begin_job(fresh_id("job"), 0, 1)


@pytest.fixture
def totals(destination: DuckDBDestination, job: Job) -> StatefulDouble:
    return StatefulDouble(step(destination, job))


def step(destination: DuckDBDestination, job: Job) -> WriteTotals:
    return WriteTotals(destination, job, Polling(), StopOnError(destination, job, lambda: None))


def written(destination: DuckDBDestination) -> list[tuple[int, int]]:
    """Records of each window with rows, by its number of minutes behind the first."""
    rows = destination.query(
        "SELECT EPOCH_US(window_start) AS start_us, SUM(records)::BIGINT AS records"
        " FROM control_totals GROUP BY start_us ORDER BY start_us"
    ).to_pylist()
    return [((row["start_us"] - FIRST_US) // BUCKET_US, row["records"]) for row in rows]


@pytest.fixture
def appends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each append."""
    sizes: list[int] = []
    add = TableAppends.add

    def counted(self: TableAppends, rows: pa.RecordBatch) -> None:
        sizes.append(rows.num_rows)
        add(self, rows)

    monkeypatch.setattr(TableAppends, "add", counted)
    return sizes


def end_of(number: int) -> int:
    return FIRST_US + (number + 1) * BUCKET_US


def test_whatever_a_watermark_passes_is_closed_in_one_append(
    totals: StatefulDouble, appends: list[int]
) -> None:
    totals.bundle([minute(number) for number in range(MINUTES)])
    totals.advance_once(end_of(MINUTES - 1))
    assert appends == [MINUTES]


@pytest.mark.parametrize("passed", [1, 2, 5, 37, 99])
def test_a_part_of_the_windows_takes_a_few_advances(
    totals: StatefulDouble, appends: list[int], passed: int
) -> None:
    totals.bundle([minute(number) for number in range(MINUTES)])
    for _ in range(passed.bit_length() + 1):
        totals.advance_once(end_of(passed - 1))
    assert sum(appends) == passed
    assert len(appends) <= passed.bit_length()
    totals.advance_once(end_of(passed - 1))
    assert sum(appends) == passed


def test_few_timers_are_set_and_none_is_left_over(totals: StatefulDouble) -> None:
    totals.bundle([minute(number) for number in range(MINUTES)])
    assert len(totals.timers[0]) <= 8
    totals.advance_once(end_of(MINUTES))
    assert totals.timers[0] == {}


def test_a_window_closes_one_by_one_where_the_watermark_goes_slowly(
    totals: StatefulDouble, appends: list[int]
) -> None:
    totals.bundle([minute(number) for number in range(3)])
    for number in range(3):
        assert totals.advance_once(end_of(number) - 1000) == 0
        totals.advance_once(end_of(number))
        assert len(appends) == number + 1
    totals.bundle([minute(1, records=4)])
    totals.advance_once(end_of(2))
    assert len(appends) == 4


def test_what_a_worker_owes_at_its_end_is_written_and_a_restore_takes_it_off(
    totals: StatefulDouble, destination: DuckDBDestination, job: Job
) -> None:
    totals.bundle([minute(number) for number in range(3)])
    savepoint = copy.deepcopy((totals.state, totals.timers))
    totals.bundle([minute(2)])
    assert close_totals(destination, job, Polling())
    assert written(destination) == [(0, 1), (1, 1), (2, 2)]
    assert close_totals(destination, job, Polling()), "again it has nothing to write"
    totals.state, totals.timers = savepoint
    after = destination.shards.begin_job(fresh_id("job"), 1, 1)
    totals.replace_instance(step(destination, after))
    totals.bundle([minute(2), minute(3)])  # the replay, and something new
    totals.advance_once(end_of(3))
    assert written(destination) == [(0, 1), (1, 1), (2, 2), (3, 1)]


def test_a_step_that_has_failed_or_was_elsewhere_leaves_nothing_to_close(
    totals: StatefulDouble,
    destination: DuckDBDestination,
    job: Job,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert not close_totals(destination, job, Polling())
    totals.bundle([minute(0)])
    with monkeypatch.context() as broken, pytest.raises(ValueError, match="broken"):
        broken.setattr(write_totals_module, "add_up", raise_broken)
        totals.bundle([minute(1)])
    assert not close_totals(destination, job, Polling())
    assert written(destination) == []


def test_a_worker_of_a_job_that_was_superseded_closes_nothing(
    totals: StatefulDouble, destination: DuckDBDestination, job: Job
) -> None:
    totals.bundle([minute(0)])
    after = destination.shards.begin_job(fresh_id("job"), 1, 1)
    StatefulDouble(step(destination, after)).bundle([minute(0)])
    with pytest.raises(Superseded):
        close_totals(destination, job, Polling())
    assert written(destination) == []


def raise_broken(*_: object) -> None:
    raise ValueError("broken")
