"""Appends of streaming to a stream on which anything may happen: none is lost or doubled."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.payments import Payment, decoded
from transforms.destinations import appends
from transforms.destinations.appends import TableAppends
from transforms.destinations.contract.write_streams import (
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamFinalized,
)
from transforms.model.tables import PAYMENTS
from transforms.stream.errors import Superseded
from transforms.stream.polling import Polling
from transforms.stream.refusals import ProveOrResend

ARRIVES, DROPPED, ANSWER_LOST, ENDS_IN_DOUBT, FINALIZED = range(5)

ROWS = [decoded([Payment(f"id {number}", 0, number)]).payments for number in range(40)]


class LossyStream:
    """A stream as the service keeps it. What happens to each append is drawn beforehand."""

    def __init__(self, fates: list[int]) -> None:
        self.fates = fates
        self.kept: list[int] = []
        self.finalized = False

    def send(self, stream: str, offset: int, batch: pa.RecordBatch) -> Any:
        fate = self.fates.pop(0) if self.fates else ARRIVES
        self.finalized |= fate == FINALIZED
        outcome: int | Exception
        if self.finalized:
            outcome = StreamFinalized(stream, "closed")
        elif fate == DROPPED:
            outcome = OffsetOutOfRange(stream, "an append before it is missing")
        elif offset < len(self.kept):
            outcome = OffsetAlreadyExists(stream, f"the end is {len(self.kept)}")
        elif offset > len(self.kept):
            outcome = OffsetOutOfRange(stream, f"the end is {len(self.kept)}")
        else:
            self.kept += batch.column("kafka_offset").to_pylist()
            outcome = offset + batch.num_rows
            if fate == ANSWER_LOST:
                outcome = OffsetAlreadyExists(stream, "the client has sent it a second time")
            elif fate == ENDS_IN_DOUBT:
                outcome = ConnectionError("cut")

        class Answer:
            def wait(self) -> int:
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome

        return Answer()

    def count_present(self, _table: str, batch: pa.RecordBatch) -> int:
        return len(set(batch.column("kafka_offset").to_pylist()) & set(self.kept))


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=9),
    st.lists(st.sampled_from([ARRIVES, ARRIVES, DROPPED, ANSWER_LOST]), max_size=30),
    st.one_of(st.none(), st.tuples(st.sampled_from([ENDS_IN_DOUBT, FINALIZED]), st.integers(0, 9))),
    st.integers(1, 4),
)
def test_the_stream_holds_a_prefix_of_the_rows_and_at_least_what_is_acknowledged(
    batches: list[tuple[int, bool]], fates: list[int], end: tuple[int, int] | None, rows: int
) -> None:
    """batches: (rows, whether they are sent at once). rows: how many fit an append."""
    if end:
        fates[end[1] : end[1] + 1] = [end[0]]
    stream = LossyStream(fates)
    policy = ProveOrResend(stream.count_present, Polling(tries=99, sleep=lambda _: None))
    one = TableAppends(stream, PAYMENTS, policy, "s", 0)  # type: ignore[arg-type]
    is_whole = False
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(appends, "MAX_APPEND_BYTES", pa.concat_batches(ROWS[:rows]).nbytes)
        with suppress(Superseded, ConnectionError):
            for size, at_once in batches:
                one.add(pa.concat_batches(ROWS[one.added : one.added + size]))
                if at_once:
                    one.send()
            one.settle(one.added)
            is_whole = True
    assert stream.kept == list(range(len(stream.kept)))
    assert one.acknowledged <= len(stream.kept) <= one.added
    if is_whole:
        assert one.acknowledged == one.added
    assert is_whole or end is not None, "nothing was in its way"
