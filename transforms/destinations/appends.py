"""The appends of rows to one write stream.

Rows are collected, cut to fit a request, and sent in order, with several appends in flight.

What a refused append means depends on who writes, so a `RefusalPolicy` decides it. A bounded run
writes to a stream that only this attempt of the bundle knows: it fails the bundle (`FailBundle`
below). Streaming appends to a stream that another process may have written to or finalized:
transforms/stream/refusals.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

import pyarrow as pa

from transforms import metrics
from transforms.destinations.contract.write_streams import (
    Acknowledgement,
    StreamError,
    WriteStreams,
)
from transforms.model.errors import GuaranteeError
from transforms.model.run_report import StreamWritten

APPEND_BYTES: Final = 2 << 20
"""Rows are collected up to this size before an append.

BigQuery is efficient above 1 MB and refuses requests above 20 MB
(https://cloud.google.com/bigquery/docs/write-api-best-practices).
"""

MAX_APPEND_BYTES: Final = 8 << 20
"""No append is larger, unless one row is.

BigQuery takes 20 MB; its documentation has said 10 MB for years
(https://cloud.google.com/bigquery/quotas#write-api-limits).
"""

APPENDS_IN_FLIGHT: Final = 4
"""Appends per stream that may wait for their acknowledgement.

The next one waits for the first: enough to cover a round trip, and a bound to the memory they take.
"""


@dataclass
class AppendInFlight:
    """Rows that were sent and are not acknowledged. offset: stream offset of the first row."""

    table: str
    stream: str
    offset: int
    rows: pa.RecordBatch
    answer: Acknowledgement

    @property
    def end(self) -> int:
        """Stream offset behind the last row."""
        return self.offset + int(self.rows.num_rows)

    def __str__(self) -> str:
        return f"write stream {self.stream}, stream offsets {self.offset} to {self.end - 1}"


class Refusal(Enum):
    """What a refused append means, where it is not an error."""

    WRITTEN = auto()
    """Exactly these rows are in the stream at this offset: as good as acknowledged."""

    SEND_AGAIN = auto()
    """Nothing of the append is written: it and all appends behind it are sent again."""


class RefusalPolicy(Protocol):
    """What a writer does when its destination does not acknowledge an append as expected."""

    def on_refusal(self, append: AppendInFlight, error: StreamError, resends: int) -> Refusal:
        """What the refusal of the first append in flight means; raises where it fails the bundle.

        resends: how often the appends in flight were sent again since the last acknowledgement.
        """

    def stop(self, append: AppendInFlight, problem: str) -> GuaranteeError:
        """The error that names the append, the problem, and what to do."""


class FailBundle:
    """The policy of a bounded run: any refusal fails the bundle.

    Its next attempt writes to other streams.
    """

    def on_refusal(self, append: AppendInFlight, error: StreamError, resends: int) -> Refusal:
        raise error

    def stop(self, append: AppendInFlight, problem: str) -> GuaranteeError:
        return GuaranteeError(
            f"{append}: {problem}. Nothing of this run is visible. Run again; if it repeats,"
            " report it with this line."
        )


@dataclass(frozen=True)
class _RefusedAtOnce:
    """A refusal that `send` has raised: `wait` raises it, so that the answers keep their order."""

    error: StreamError

    def wait(self) -> int:
        raise self.error


class TableAppends:
    """The rows of one table that one writer appends to one write stream.

    stream: None creates a PENDING stream with the first append. next_offset: the stream offset of
    the first row. before_send: called before any collected row is sent.

    An append that fails leaves the rest collected, so `acknowledged` never counts a row that was
    not sent.
    """

    def __init__(
        self,
        streams: WriteStreams,
        table: str,
        policy: RefusalPolicy,
        stream: str | None = None,
        next_offset: int = 0,
        before_send: Callable[[], None] = lambda: None,
    ) -> None:
        self._streams = streams
        self._table = table
        self._policy = policy
        self._stream = stream
        self._before_send = before_send
        self._collected: deque[pa.RecordBatch] = deque()
        self._collected_bytes = 0
        self._in_flight: deque[AppendInFlight] = deque()
        self._sent = next_offset
        self._resends = 0
        self.acknowledged = next_offset
        """Stream offset behind the rows that are known to be written."""
        self.added = next_offset
        """Stream offset behind all rows, collected ones included."""

    def add(self, rows: pa.RecordBatch) -> None:
        """Collects the rows, and sends what is collected once it is enough for an append."""
        self._collected.append(rows)
        self._collected_bytes += rows.nbytes
        self.added += rows.num_rows
        if self._collected_bytes >= APPEND_BYTES:
            self.send()

    def send(self) -> None:
        """Sends what is collected.

        Raises what the policy makes of an earlier append's refusal.
        """
        if not self._collected:
            return
        self._before_send()
        if self._stream is None:
            self._stream = self._streams.create(self._table)
        self._collected = deque(cut(pa.concat_batches(self._collected), MAX_APPEND_BYTES))
        while self._collected:
            rows = self._collected[0]
            answer = self._answer_to(self._stream, self._sent, rows)
            append = AppendInFlight(self._table, self._stream, self._sent, rows, answer)
            # From here on the rows are in flight: a failure below must not send them once more.
            self._collected.popleft()
            self._in_flight.append(append)
            self._sent = append.end
            while len(self._in_flight) > APPENDS_IN_FLIGHT:
                self._settle_first()
        self._collected_bytes = 0

    def settle(self, offset: int) -> None:
        """Returns when every row before this stream offset is acknowledged."""
        if self._sent < offset:
            self.send()
        while self.acknowledged < offset:
            self._settle_first()

    def written(self) -> StreamWritten | None:
        """The stream and its rows, once all are acknowledged; None: there was no row."""
        self.settle(self.added)
        return StreamWritten(self._table, self._stream, self.acknowledged) if self._stream else None

    def _settle_first(self) -> None:
        """Waits for the append that was sent first, or sends everything in flight again."""
        first = self._in_flight[0]
        try:
            acknowledged = first.answer.wait()
        except StreamError as error:
            refusal = self._policy.on_refusal(first, error, self._resends)
            if refusal is Refusal.SEND_AGAIN:
                self._resends += 1
                metrics.count(metrics.APPEND_RETRIES, len(self._in_flight))
                for append in self._in_flight:
                    append.answer = self._answer_to(append.stream, append.offset, append.rows)
                return
            acknowledged = first.end
        if acknowledged != first.end:
            raise self._policy.stop(
                first,
                f"acknowledged up to stream offset {acknowledged} where {first.end} was expected",
            )
        self._in_flight.popleft()
        self.acknowledged = first.end
        self._resends = 0
        metrics.count(metrics.APPENDS, 1)
        metrics.count(metrics.APPENDED_BYTES, first.rows.nbytes)

    def _answer_to(self, stream: str, offset: int, rows: pa.RecordBatch) -> Acknowledgement:
        try:
            return self._streams.send(stream, offset, rows)
        except StreamError as error:
            return _RefusedAtOnce(error)


def cut(rows: pa.RecordBatch, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Pieces of at most so many bytes, in order; a single row may be larger."""
    if rows.nbytes <= most_bytes or rows.num_rows == 1:
        yield rows
        return
    half = rows.num_rows // 2
    yield from cut(rows.slice(0, half), most_bytes)
    yield from cut(rows.slice(half), most_bytes)
