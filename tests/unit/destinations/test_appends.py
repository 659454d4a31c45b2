"""Appends to a stream that only this writer knows: what is sent, at which offsets, how large."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from tests.support.payments import Payment, decoded
from transforms.destinations import appends
from transforms.destinations.appends import APPENDS_IN_FLIGHT, FailBundle, TableAppends
from transforms.destinations.contract.write_streams import (
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamError,
    StreamFinalized,
    StreamNotFound,
)
from transforms.model.errors import GuaranteeError
from transforms.model.run_report import StreamWritten
from transforms.model.tables import PAYMENTS

LARGE = 4000


def rows(*offsets: int, padding: int = 0) -> pa.RecordBatch:
    """padding: bytes that each row has more."""
    payments = [Payment(f"id {offset}" + "x" * padding, offset, offset) for offset in offsets]
    return decoded(payments).payments


class Recorder:
    """Acknowledges everything but what `refusals` (stream offset -> error) refuse."""

    def __init__(self, refusals: dict[int, StreamError] | None = None, shift: int = 0) -> None:
        self.refusals = refusals or {}
        self.shift = shift
        self.created: list[str] = []
        self.sent: list[tuple[int, pa.RecordBatch]] = []
        self.waited: list[int] = []

    def create(self, table: str, kind: str = "PENDING") -> str:
        self.created.append(f"{table} {kind}")
        return "s"

    def send(self, stream: str, offset: int, batch: pa.RecordBatch) -> Any:
        assert stream == "s"
        self.sent.append((offset, batch))
        recorder = self

        class Answer:
            def wait(self) -> int:
                recorder.waited.append(offset)
                if offset in recorder.refusals:
                    raise recorder.refusals[offset]
                return offset + batch.num_rows + recorder.shift

        return Answer()

    def kafka_offsets(self) -> list[list[int]]:
        return [batch.column("kafka_offset").to_pylist() for _, batch in self.sent]


def bounded(recorder: Recorder) -> TableAppends:
    return TableAppends(recorder, PAYMENTS, FailBundle())  # type: ignore[arg-type]


def test_a_stream_is_created_with_the_first_row_and_none_without() -> None:
    recorder = Recorder()
    assert bounded(recorder).written() is None
    assert recorder.created == []
    one = bounded(recorder)
    one.add(rows(0))
    one.add(rows(1, 2))
    assert one.written() == StreamWritten(PAYMENTS, "s", 3)
    assert recorder.created == [f"{PAYMENTS} PENDING"]
    assert recorder.kafka_offsets() == [[0, 1, 2]]


def test_pieces_follow_each_other_and_none_is_over_the_limit_unless_one_row_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit = rows(0, 1, 2).nbytes
    monkeypatch.setattr(appends, "MAX_APPEND_BYTES", limit)
    recorder = Recorder()
    one = bounded(recorder)
    for batch in (rows(*range(7)), rows(7, padding=LARGE), rows(8), rows(9, 10, padding=LARGE)):
        one.add(batch)
    assert one.written() == StreamWritten(PAYMENTS, "s", 11)
    next_offset = 0
    for offset, piece in recorder.sent:
        assert offset == next_offset
        assert piece.nbytes <= limit or piece.num_rows == 1
        next_offset += piece.num_rows
    assert [at for piece in recorder.kafka_offsets() for at in piece] == list(range(11))
    assert [piece.num_rows for _, piece in recorder.sent if piece.nbytes > limit] == [1, 1, 1]


def test_no_more_pieces_are_in_flight_than_appends_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appends, "MAX_APPEND_BYTES", 1)
    recorder = Recorder()
    one = bounded(recorder)
    one.add(rows(*range(APPENDS_IN_FLIGHT + 3)))
    one.send()
    assert (len(recorder.sent), recorder.waited) == (APPENDS_IN_FLIGHT + 3, [0, 1, 2])
    one.settle(4)
    assert (one.acknowledged, recorder.waited) == (4, [0, 1, 2, 3])


@pytest.mark.parametrize(
    "kind", [OffsetAlreadyExists, OffsetOutOfRange, StreamFinalized, StreamNotFound, StreamError]
)
def test_any_refusal_fails_the_bundle_and_nothing_behind_it_counts(
    kind: type[StreamError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appends, "MAX_APPEND_BYTES", 1)
    recorder = Recorder({1: kind("s", "refused")})
    one = bounded(recorder)
    one.add(rows(0, 1, 2))
    for _ in range(2):
        with pytest.raises(kind, match="refused"):
            one.written()
    assert (one.acknowledged, one.added) == (1, 3)
    assert [offset for offset, _ in recorder.sent] == [0, 1, 2]


def test_an_answer_with_another_offset_fails_the_bundle() -> None:
    one = bounded(Recorder(shift=4))
    one.add(rows(0))
    with pytest.raises(
        GuaranteeError, match=r"write stream s.* up to stream offset 5 where 1 was expected"
    ):
        one.written()


def test_rows_that_a_failure_between_two_pieces_kept_back_are_sent_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(appends, "MAX_APPEND_BYTES", 1)

    class Failing(Recorder):
        def send(self, stream: str, offset: int, batch: pa.RecordBatch) -> Any:
            if offset == 2 and not failures:
                failures.append(offset)
                raise ConnectionError("cut")
            return super().send(stream, offset, batch)

    failures: list[int] = []
    recorder = Failing()
    one = bounded(recorder)
    one.add(rows(0, 1, 2, 3))
    with pytest.raises(ConnectionError):
        one.send()
    assert (one.acknowledged, one.added) == (0, 4)
    one.add(rows(4))
    assert one.written() == StreamWritten(PAYMENTS, "s", 5)
    assert recorder.kafka_offsets() == [[0], [1], [2], [3], [4]]
