from collections import deque
from typing import Any

import pyarrow as pa
import pytest

from tests.support.payments import Payment, decoded
from transforms.destinations.appends import APPENDS_IN_FLIGHT, TableAppends
from transforms.destinations.contract.write_streams import (
    DifferentRows,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamFinalized,
    StreamNotFound,
)
from transforms.model.errors import GuaranteeError
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED, ROW_TABLES
from transforms.stream.append import ShardAppends
from transforms.stream.errors import StreamGone, Superseded
from transforms.stream.polling import Polling
from transforms.stream.refusals import ProveOrResend


def rows(*offsets: int) -> pa.RecordBatch:
    return decoded([Payment(f"id {offset}", offset, offset) for offset in offsets]).payments


class ScriptedStream:
    """Answers each wait as told: None acknowledges, a number is an offset of its own, an exception
    refuses. Writes down what happens.
    """

    def __init__(self, *answers: Any, visible: int = 0) -> None:
        self.answers = deque(answers)
        self.visible = visible
        self.events: list[tuple[Any, ...]] = []
        self.slept: list[float] = []
        self.polling = Polling(tries=3, seconds=2.0, sleep=self.slept.append)
        self.streams = self.rows = self

    def send(self, stream: str, offset: int, batch: pa.RecordBatch) -> Any:
        self.events.append(("send", stream, offset, batch.num_rows))
        behind, script = offset + batch.num_rows, self

        class Answer:
            def wait(self) -> int:
                script.events.append(("wait", stream, offset))
                answer = script.answers.popleft() if script.answers else None
                if isinstance(answer, Exception):
                    raise answer
                return behind if answer is None else int(answer)

        return Answer()

    def count_present(self, table: str, batch: pa.RecordBatch) -> int:
        self.events.append(("prove", table, batch.num_rows))
        return self.visible


def appends(stream: ScriptedStream, next_offset: int = 0) -> TableAppends:
    policy = ProveOrResend(stream.count_present, stream.polling)
    return TableAppends(stream, PAYMENTS, policy, "s", next_offset)  # type: ignore[arg-type]


def shard_appends(stream: ScriptedStream) -> ShardAppends:
    """Each stream has the name of its table."""
    names = {table: table for table in ROW_TABLES}
    return ShardAppends(stream, names, {}, stream.polling)  # type: ignore[arg-type]


def send_all(stream: ScriptedStream, *batches: pa.RecordBatch) -> TableAppends:
    one = appends(stream)
    for batch in batches:
        one.add(batch)
        one.send()
    return one


def test_several_appends_are_in_flight_in_order_and_no_more_than_the_bound() -> None:
    stream = ScriptedStream()
    one = send_all(stream, *[rows(offset) for offset in range(APPENDS_IN_FLIGHT + 2)])
    assert [event[0] for event in stream.events] == ["send"] * (APPENDS_IN_FLIGHT + 1) + [
        "wait",
        "send",
        "wait",
    ]
    one.settle(one.added)
    assert [event[2] for event in stream.events if event[0] == "wait"] == list(
        range(APPENDS_IN_FLIGHT + 2)
    )
    assert one.acknowledged == APPENDS_IN_FLIGHT + 2


def test_a_bundle_ends_only_when_everything_is_acknowledged() -> None:
    stream = ScriptedStream(None, StreamFinalized("s", "closed"))
    one = send_all(stream, rows(0), rows(1))
    with pytest.raises(Superseded):
        one.settle(one.added)
    assert one.acknowledged == 1


def test_an_append_at_a_known_offset_is_success_when_one_query_shows_every_row() -> None:
    stream = ScriptedStream(OffsetAlreadyExists("s", "before"), visible=2)
    one = send_all(stream, rows(0, 1))
    one.settle(2)
    assert stream.events[-1] == ("prove", PAYMENTS, 2)


@pytest.mark.parametrize(
    "answer", [OffsetAlreadyExists("s", "before"), DifferentRows("s", "others")]
)
def test_an_append_at_a_known_offset_that_is_not_proven_stops_and_names_its_coordinates(
    answer: Exception,
) -> None:
    stream = ScriptedStream(answer, visible=1)
    one = send_all(stream, rows(7, 8))
    with pytest.raises(
        GuaranteeError,
        match="stream s, stream offsets 0 to 1, payment_transactions payments:0:7 to payments:0:8",
    ):
        one.settle(2)


def test_out_of_range_sends_everything_again_from_the_first_append_that_is_not_acknowledged() -> (
    None
):
    stream = ScriptedStream(
        None, OffsetOutOfRange("s", "missing"), None, OffsetOutOfRange("s", "missing")
    )
    one = send_all(stream, rows(0), rows(1), rows(2))
    one.settle(3)
    assert [event[2] for event in stream.events if event[0] == "send"] == [0, 1, 2, 1, 2, 2]
    assert stream.slept == []


def test_out_of_range_that_stays_stops_after_a_bounded_wait() -> None:
    stream = ScriptedStream(*[OffsetOutOfRange("s", "missing") for _ in range(9)])
    one = send_all(stream, rows(5))
    with pytest.raises(GuaranteeError, match=r"payments:0:5: missing, after 3 resends"):
        one.settle(1)
    assert stream.slept == [2.0, 2.0]


def test_an_answer_with_another_offset_stops() -> None:
    one = send_all(ScriptedStream(5), rows(0))
    with pytest.raises(
        GuaranteeError, match="acknowledged up to stream offset 5 where 1 was expected"
    ):
        one.settle(1)


def test_a_stream_that_does_not_exist_any_more_fails_the_bundle_so_that_it_recovers() -> None:
    one = send_all(ScriptedStream(StreamNotFound("s", "expired")), rows(0))
    with pytest.raises(StreamGone):
        one.settle(1)


def test_a_refusal_that_send_itself_raises_is_told_in_order() -> None:
    class Refusing(ScriptedStream):
        def send(self, stream: str, offset: int, batch: pa.RecordBatch) -> Any:
            if offset:
                raise StreamFinalized(stream, "closed")
            return super().send(stream, offset, batch)

    one = send_all(Refusing(), rows(0), rows(1))
    with pytest.raises(Superseded):
        one.settle(2)
    assert one.acknowledged == 1


def test_an_answer_that_says_nothing_fails_the_bundle_and_is_no_success() -> None:
    one = send_all(ScriptedStream(ConnectionError("cut")), rows(0))
    with pytest.raises(ConnectionError):
        one.settle(1)
    assert one.acknowledged == 0


# Rows that are too large together go out in pieces: here each row is one.


@pytest.fixture
def row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.destinations.appends.MAX_APPEND_BYTES", 1)


def sent(stream: ScriptedStream) -> list[tuple[int, int]]:
    """(stream offset, rows) of every append."""
    return [(event[2], event[3]) for event in stream.events if event[0] == "send"]


@pytest.mark.usefixtures("row_by_row")
def test_pieces_go_on_at_the_offset_where_the_state_left_off() -> None:
    stream = ScriptedStream()
    one = appends(stream, next_offset=7)
    one.add(rows(0, 1, 2))
    one.settle(9)
    assert (one.acknowledged, one.added) == (9, 10)
    one.settle(one.added)
    assert (one.acknowledged, sent(stream)) == (10, [(7, 1), (8, 1), (9, 1)])


@pytest.mark.usefixtures("row_by_row")
def test_a_lost_acknowledgement_of_a_piece_is_proven_by_its_own_rows_and_no_others() -> None:
    stream = ScriptedStream(None, OffsetAlreadyExists("s", "before"), None, visible=1)
    one = send_all(stream, rows(0, 1, 2))
    one.settle(one.added)
    assert [event for event in stream.events if event[0] == "prove"] == [("prove", PAYMENTS, 1)]
    assert (one.acknowledged, sent(stream)) == (3, [(0, 1), (1, 1), (2, 1)])


@pytest.mark.usefixtures("row_by_row")
def test_a_piece_at_a_known_offset_that_is_not_proven_stops_and_names_its_coordinate() -> None:
    stream = ScriptedStream(None, OffsetAlreadyExists("s", "before"), None, visible=0)
    one = send_all(stream, rows(7, 8, 9))
    with pytest.raises(GuaranteeError, match="offsets 1 to 1, payment_transactions payments:0:8:"):
        one.settle(one.added)
    assert one.acknowledged == 1


@pytest.mark.usefixtures("row_by_row")
def test_out_of_range_on_a_piece_sends_again_from_the_first_that_is_not_acknowledged() -> None:
    stream = ScriptedStream(None, OffsetOutOfRange("s", "missing"))
    one = send_all(stream, rows(0, 1, 2))
    one.settle(one.added)
    assert [offset for offset, _ in sent(stream)] == [0, 1, 2, 1, 2]
    assert one.acknowledged == 3


@pytest.mark.usefixtures("row_by_row")
def test_out_of_range_before_the_last_piece_is_sent_keeps_the_order_of_the_pieces() -> None:
    stream = ScriptedStream(OffsetOutOfRange("s", "missing"))
    one = send_all(stream, rows(*range(APPENDS_IN_FLIGHT + 3)))
    one.settle(one.added)
    first_round, resent = list(range(APPENDS_IN_FLIGHT + 1)), list(range(APPENDS_IN_FLIGHT + 1))
    rest = [APPENDS_IN_FLIGHT + 1, APPENDS_IN_FLIGHT + 2]
    assert [offset for offset, _ in sent(stream)] == [*first_round, *resent, *rest]
    assert one.acknowledged == APPENDS_IN_FLIGHT + 3


@pytest.mark.usefixtures("row_by_row")
def test_a_shard_that_is_taken_over_between_two_pieces_fails_with_the_first_one_acknowledged() -> (
    None
):
    refused = StreamFinalized("s", "closed")
    one = send_all(ScriptedStream(None, refused, refused), rows(0, 1, 2))
    for _ in range(2):
        with pytest.raises(Superseded):
            one.settle(one.added)
    assert (one.acknowledged, one.added) == (1, 3)


@pytest.mark.usefixtures("row_by_row")
@pytest.mark.parametrize("refused", [None, StreamFinalized("s", "closed")])
def test_no_duplicate_is_sent_before_the_last_piece_of_its_payments_is_acknowledged(
    refused: Exception | None,
) -> None:
    # The answers come to the payments first, and the last one of them decides.
    stream = ScriptedStream(None, None, refused)
    shard = shard_appends(stream)
    shard.add({PAYMENTS: rows(0, 1, 2), DUPLICATES: rows(3, 4)})
    if refused:
        with pytest.raises(Superseded):
            shard.settle()
    else:
        assert shard.settle() == {PAYMENTS: 3, DUPLICATES: 2, REJECTED: 0}
    duplicates = [at for at, event in enumerate(stream.events) if event[:2] == ("send", DUPLICATES)]
    waited = [at for at, event in enumerate(stream.events) if event[:2] == ("wait", PAYMENTS)]
    assert len(waited) == 3
    assert len(duplicates) == (0 if refused else 2)
    assert all(at > waited[-1] for at in duplicates)


def test_duplicates_are_sent_only_when_the_payments_before_them_are_acknowledged() -> None:
    stream = ScriptedStream()
    shard = shard_appends(stream)
    shard.add({PAYMENTS: rows(0), DUPLICATES: rows(1), REJECTED: rows(2)})
    shard.add({DUPLICATES: rows(3)})
    assert shard.settle() == {PAYMENTS: 1, DUPLICATES: 2, REJECTED: 1}
    order = [event[:2] for event in stream.events]
    assert order.index(("wait", PAYMENTS)) < order.index(("send", DUPLICATES))


def test_a_full_batch_of_duplicates_waits_for_its_payments_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transforms.destinations.appends.APPEND_BYTES", 1)
    stream = ScriptedStream(StreamFinalized("s", "closed"))
    shard = shard_appends(stream)
    with pytest.raises(Superseded):
        shard.add({PAYMENTS: rows(0), DUPLICATES: rows(1)})
    assert ("send", DUPLICATES, 0, 1) not in stream.events
