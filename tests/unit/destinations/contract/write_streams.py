"""The contract of write streams as tests.

A destination passes them by giving `Contract` its fixture:

class TestMyDestination(Contract):
    @pytest.fixture
    def destination(self): yields an open destination with its tables
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from transforms.destinations.contract.write_streams import (
    COMMITTED_STREAM,
    PENDING_STREAM,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamAlreadyCommitted,
    StreamFinalized,
    StreamNotFinalized,
    StreamNotFound,
)
from transforms.model.tables import GAPS, GAPS_SCHEMA, TOTALS


def rows(*offsets: int) -> pa.RecordBatch:
    """Rows of offset_gaps, the smallest table."""
    return pa.RecordBatch.from_pylist(
        [
            {
                "kafka_topic": "t",
                "kafka_partition": 0,
                "first_offset": offset,
                "last_offset": offset,
                "cause": "no_record",
            }
            for offset in offsets
        ],
        schema=GAPS_SCHEMA,
    )


def visible(destination: Any) -> list[int]:
    name = destination.settings.table(GAPS) if hasattr(destination, "settings") else GAPS
    return (
        destination.query(f"SELECT first_offset FROM {name} ORDER BY first_offset")
        .column(0)
        .to_pylist()
    )


class Contract:
    def unknown_stream(self, destination: Any) -> str:
        """The name of a stream that does not exist."""
        return f"{GAPS}/none"

    def test_rows_are_visible_only_after_the_commit(self, destination: Any) -> None:
        stream = destination.streams.create(GAPS)
        assert destination.streams.send(stream, 0, rows(1, 2)).wait() == 2
        assert destination.streams.send(stream, 2, rows(3)).wait() == 3
        assert visible(destination) == []
        assert destination.streams.finalize(stream) == 3
        assert visible(destination) == []
        destination.streams.commit(GAPS, [stream])
        assert visible(destination) == [1, 2, 3]

    def test_every_stream_has_a_name_of_its_own(self, destination: Any) -> None:
        assert len({destination.streams.create(GAPS) for _ in range(20)}) == 20

    def test_an_append_again_is_an_error_and_writes_nothing(self, destination: Any) -> None:
        stream = destination.streams.create(GAPS)
        destination.streams.send(stream, 0, rows(1, 2)).wait()
        with pytest.raises(OffsetAlreadyExists):
            destination.streams.send(stream, 0, rows(1, 2)).wait()
        with pytest.raises(OffsetAlreadyExists):
            destination.streams.send(stream, 1, rows(2)).wait()
        assert destination.streams.finalize(stream) == 2

    def test_several_appends_of_a_stream_are_in_flight_in_their_order(
        self, destination: Any
    ) -> None:
        stream = destination.streams.create(GAPS, COMMITTED_STREAM)
        in_flight = [
            destination.streams.send(stream, offset, rows(*numbers))
            for offset, numbers in ((0, (1, 2)), (2, (3,)), (3, (4, 5)))
        ]
        assert [append.wait() for append in in_flight] == [2, 3, 5]
        assert [append.wait() for append in in_flight] == [2, 3, 5]
        assert visible(destination) == [1, 2, 3, 4, 5]
        assert destination.streams.finalize(stream) == 5

    def test_a_refused_append_refuses_none_of_another_stream_that_is_in_flight(
        self, destination: Any
    ) -> None:
        first, closed, last = (destination.streams.create(GAPS, COMMITTED_STREAM) for _ in range(3))
        destination.streams.finalize(closed)
        before, refused, behind = (
            destination.streams.send(stream, 0, rows(number))
            for number, stream in enumerate((first, closed, last))
        )
        assert (behind.wait(), before.wait()) == (1, 1)
        with pytest.raises(StreamFinalized):
            refused.wait()
        assert visible(destination) == [0, 2]

    def test_an_append_behind_the_end_is_refused(self, destination: Any) -> None:
        stream = destination.streams.create(GAPS)
        with pytest.raises(OffsetOutOfRange):
            destination.streams.send(stream, 1, rows(1)).wait()
        assert destination.streams.finalize(stream) == 0

    def test_a_finalized_stream_takes_no_more_rows(self, destination: Any) -> None:
        stream = destination.streams.create(GAPS)
        destination.streams.send(stream, 0, rows(1)).wait()
        assert destination.streams.finalize(stream) == destination.streams.finalize(stream) == 1
        with pytest.raises(StreamFinalized):
            destination.streams.send(stream, 1, rows(2)).wait()

    def test_an_unknown_stream_is_an_error(self, destination: Any) -> None:
        calls: list[Callable[[], Any]] = [
            lambda: destination.streams.send(self.unknown_stream(destination), 0, rows(1)).wait(),
            lambda: destination.streams.finalize(self.unknown_stream(destination)),
            lambda: destination.streams.commit(GAPS, [self.unknown_stream(destination)]),
        ]
        for call in calls:
            with pytest.raises(StreamNotFound):
                call()

    def test_a_group_is_committed_as_a_whole_or_not_at_all(self, destination: Any) -> None:
        ready, open_ = destination.streams.create(GAPS), destination.streams.create(GAPS)
        destination.streams.send(ready, 0, rows(1)).wait()
        destination.streams.send(open_, 0, rows(2)).wait()
        destination.streams.finalize(ready)
        for other, error in (
            (open_, StreamNotFinalized),
            (self.unknown_stream(destination), StreamNotFound),
        ):
            with pytest.raises(error):
                destination.streams.commit(GAPS, [ready, other])
            assert visible(destination) == []
        destination.streams.finalize(open_)
        destination.streams.commit(GAPS, [ready, open_])
        assert visible(destination) == [1, 2]

    def test_a_commit_again_is_an_error_and_doubles_nothing(self, destination: Any) -> None:
        first, second = destination.streams.create(GAPS), destination.streams.create(GAPS)
        for stream, offset in ((first, 1), (second, 2)):
            destination.streams.send(stream, 0, rows(offset)).wait()
            destination.streams.finalize(stream)
        destination.streams.commit(GAPS, [first])
        for group in ([first], [first, second]):
            with pytest.raises(StreamAlreadyCommitted):
                destination.streams.commit(GAPS, group)
        assert visible(destination) == [1]

    def test_what_is_forgotten_keeps_its_rows_and_an_open_stream_goes_on(
        self, destination: Any
    ) -> None:
        streams = {
            kind: [destination.streams.create(GAPS, kind) for _ in range(2)]
            for kind in (PENDING_STREAM, COMMITTED_STREAM)
        }
        for offset, stream in enumerate(stream for both in streams.values() for stream in both):
            destination.streams.send(stream, 0, rows(offset)).wait()
        for closed, _ in streams.values():
            destination.streams.finalize(closed)
        destination.streams.commit(GAPS, [streams[PENDING_STREAM][0]])
        for forget in (
            lambda: destination.streams.forget(
                [name for both in streams.values() for name in both]
            ),
            destination.streams.forget_closed,
        ):
            forget()
            assert visible(destination) == [0, 2, 3]
        _, pending = streams[PENDING_STREAM]
        assert destination.streams.send(pending, 1, rows(4)).wait() == 2
        destination.streams.finalize(pending)
        destination.streams.forget([pending])
        destination.streams.forget_closed()
        destination.streams.commit(GAPS, [pending])
        assert destination.streams.send(streams[COMMITTED_STREAM][1], 1, rows(5)).wait() == 2
        assert visible(destination) == [0, 1, 2, 3, 4, 5]

    def test_a_stream_without_rows_can_be_committed(self, destination: Any) -> None:
        stream = destination.streams.create(GAPS)
        assert destination.streams.finalize(stream) == 0
        destination.streams.commit(GAPS, [stream])
        assert visible(destination) == []

    def test_rows_of_a_committed_stream_are_visible_when_they_are_acknowledged(
        self, destination: Any
    ) -> None:
        stream = destination.streams.create(GAPS, COMMITTED_STREAM)
        first, second = (
            destination.streams.send(stream, 0, rows(1, 2)),
            destination.streams.send(stream, 2, rows(3)),
        )
        assert (first.wait(), second.wait()) == (2, 3)
        assert visible(destination) == [1, 2, 3]
        with pytest.raises(OffsetAlreadyExists):
            destination.streams.send(stream, 2, rows(3)).wait()
        with pytest.raises(OffsetOutOfRange):
            destination.streams.send(stream, 4, rows(4)).wait()
        assert destination.streams.finalize(stream) == 3
        with pytest.raises(StreamFinalized):
            destination.streams.send(stream, 3, rows(4)).wait()
        assert visible(destination) == [1, 2, 3]

    def test_a_committed_stream_cannot_be_committed_again(self, destination: Any) -> None:
        stream = destination.streams.create(GAPS, COMMITTED_STREAM)
        destination.streams.finalize(stream)
        with pytest.raises(ValueError, match="PENDING"):
            destination.streams.commit(GAPS, [stream])

    def test_a_stream_belongs_to_its_table(self, destination: Any) -> None:
        stream = destination.streams.create(GAPS)
        destination.streams.finalize(stream)
        with pytest.raises(ValueError, match=TOTALS):
            destination.streams.commit(TOTALS, [stream])
