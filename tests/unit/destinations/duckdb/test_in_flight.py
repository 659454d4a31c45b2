"""Appends into DuckDB that are in flight: what is one transaction, and what each is told."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.destinations.contract.write_streams import rows, visible
from transforms.destinations.contract.write_streams import (
    COMMITTED_STREAM,
    PENDING_STREAM,
    DifferentRows,
    OffsetAlreadyExists,
    OffsetOutOfRange,
)
from transforms.destinations.duckdb import in_flight
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.tables import GAPS


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
