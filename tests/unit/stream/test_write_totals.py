"""WriteTotals as a runner drives it: which timers it sets, and what each of them closes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.options.schema_file import load_schema
from tests.support.in_memory_kafka import NOW_US
from tests.support.stateful_double import StatefulDouble
from transforms.destinations.appends import TableAppends
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.buckets import BUCKET_US
from transforms.model.coders import encode_rows
from transforms.model.tables import TOTALS_SCHEMA
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
def totals(path: Path) -> Iterator[StatefulDouble]:
    destination = DuckDBDestination(path)
    with destination:
        destination.tables.create(load_schema(None))
        destination.shards.create(1)
        job = destination.shards.begin_job("job", 0, 1)
        stop = StopOnError(destination, job, lambda: None)
        yield StatefulDouble(WriteTotals(destination, job, Polling(), stop))


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
