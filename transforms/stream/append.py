"""Step 3 of streaming: appends at the next offset of a shard's streams, several in flight, in
order.

What each answer means:
- acknowledged at another offset than expected: the destination breaks its contract; stop.
- OffsetAlreadyExists: before the end of the stream, which does not say "these rows". Success only
  when one query shows every coordinate of the append in the table; else stop.
- OffsetOutOfRange: an earlier append is missing. Resend from the first unacknowledged one, a
  bounded number of times, then stop.
- StreamFinalized: somebody has recovered the shard; this writer is the zombie, and fails.
- StreamNotFound: the stream has expired; the bundle fails, and its next attempt recovers the shard.
Any other error leaves open what was written: the bundle fails, and its next attempt recovers the
shard.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.present_rows import KEY_COLUMNS
from transforms.destinations.contract.write_streams import (
    Acknowledgement,
    DifferentRows,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamError,
    StreamFinalized,
    StreamNotFound,
)
from transforms.model.errors import GuaranteeError
from transforms.model.tables import DUPLICATES, PAYMENTS, ROW_TABLES
from transforms.stream.recover import Polling, Superseded

APPEND_BYTES: Final = 2 << 20
"""Rows are collected up to this size before an append, or to the end of the bundle (see
transforms/write/write_rows.py).
"""

APPENDS_IN_FLIGHT: Final = 4
"""Per stream, before the next one waits for the first: enough to cover a round trip, and a bound to
what waits in memory.
"""


class StreamGone(RuntimeError):
    """A stream of this epoch does not exist any more: the shard must be recovered before the bundle
    is tried again.
    """


@dataclass(frozen=True)
class _Refused:
    """A refusal that `send` itself has raised, told by `wait` like any other, so that the order of
    the answers is kept.
    """

    error: StreamError

    def wait(self) -> int:
        raise self.error


@dataclass
class _InFlight:
    offset: int
    rows: pa.RecordBatch
    answer: Acknowledgement


class TableAppends:
    """One write stream of one shard within one bundle."""

    def __init__(
        self,
        destination: Destination,
        table: str,
        stream: str,
        next_offset: int,
        polling: Polling,
    ) -> None:
        self._destination = destination
        self._table = table
        self._stream = stream
        self._patience = polling
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._in_flight: deque[_InFlight] = deque()
        self._sent = next_offset
        self._resends = 0
        self.acknowledged = next_offset
        self.added = next_offset
        """Stream offset behind everything that was added."""

    def add(self, rows: pa.RecordBatch) -> bool:
        """Keeps the rows for the next append. True: there is enough for one."""
        self._waiting.append(rows)
        self._waiting_bytes += rows.nbytes
        self.added += rows.num_rows
        return self._waiting_bytes >= APPEND_BYTES

    def send(self) -> None:
        """Appends what was added. Raises what an earlier append was refused with."""
        if not self._waiting:
            return
        rows = pa.concat_batches(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        self._in_flight.append(_InFlight(self._sent, rows, self._send(self._sent, rows)))
        self._sent += rows.num_rows
        while len(self._in_flight) > APPENDS_IN_FLIGHT:
            self._settle_first()

    def settle(self, offset: int) -> None:
        """Returns when everything before this stream offset is acknowledged."""
        if self._sent < offset:
            self.send()
        while self.acknowledged < offset:
            self._settle_first()

    def _settle_first(self) -> None:
        first = self._in_flight[0]
        expected = first.offset + first.rows.num_rows
        try:
            behind = first.answer.wait()
        except OffsetAlreadyExists as error:
            self._require_proof(first, error)
            behind = expected
        except OffsetOutOfRange as error:
            self._resend(error)
            return
        except StreamFinalized as error:
            raise Superseded(
                f"{self._table}: somebody else has recovered this shard ({error})"
            ) from error
        except StreamNotFound as error:
            raise StreamGone(f"{self._table}: {error}") from error
        if behind != expected:
            raise GuaranteeError(
                f"{self._where(first)}: acknowledged up to stream offset {behind} where {expected}"
                f" was expected. {_STOPPED}"
            )
        self._in_flight.popleft()
        self.acknowledged = expected
        self._resends = 0

    def _send(self, offset: int, rows: pa.RecordBatch) -> Acknowledgement:
        try:
            return self._destination.streams.send(self._stream, offset, rows)
        except StreamError as error:
            return _Refused(error)

    def _resend(self, error: OffsetOutOfRange) -> None:
        if self._resends >= self._patience.tries:
            raise GuaranteeError(
                f"{self._where(self._in_flight[0])}: {error.detail}, after {self._resends} resends."
                f" {_STOPPED}"
            ) from error
        if self._resends:
            self._patience.sleep(self._patience.seconds)
        self._resends += 1
        for append in self._in_flight:
            append.answer = self._send(append.offset, append.rows)

    def _require_proof(self, append: _InFlight, error: OffsetAlreadyExists) -> None:
        found = (
            0
            if isinstance(error, DifferentRows)
            else self._destination.rows.count_present(self._table, append.rows)
        )
        if found != append.rows.num_rows:
            raise GuaranteeError(
                f"{self._where(append)}: the offset was written before, but not with these rows:"
                f" {error.detail}. {_STOPPED}"
            ) from error

    def _where(self, append: _InFlight) -> str:
        end = append.offset + append.rows.num_rows
        return f"write stream {self._stream}, stream offsets {append.offset} to {end - 1}, {_ends(self._table, append.rows)}"


_STOPPED: Final = "Nothing more was written; start again from the last checkpoint."


def _ends(table: str, rows: pa.RecordBatch) -> str:
    """The keys of the first and the last row."""
    ends = [
        ":".join(str(rows.column(name)[row].as_py()) for name in KEY_COLUMNS[table])
        for row in (0, rows.num_rows - 1)
    ]
    return f"{table} " + " to ".join(dict.fromkeys(ends))


class ShardAppends:
    """The three streams of one shard within one bundle.

    A duplicate is sent only when the payments added before it are acknowledged: else a crash could
    leave the duplicate without its payment, and if the payment's record were late in the replay,
    its id would have no payment at all.
    """

    def __init__(
        self,
        destination: Destination,
        streams: Mapping[str, str],
        next_offsets: Mapping[str, int],
        polling: Polling,
    ) -> None:
        self._tables = {
            table: TableAppends(
                destination, table, streams[table], next_offsets.get(table, 0), polling
            )
            for table in ROW_TABLES
        }
        self._before_duplicates: Callable[[], None] = lambda: self._tables[PAYMENTS].settle(
            self._tables[PAYMENTS].added
        )

    def add(self, tables: Mapping[str, pa.RecordBatch]) -> None:
        for table in ROW_TABLES:
            if table in tables and self._tables[table].add(tables[table]):
                self._send(table)

    def send_rest(self) -> None:
        """Sends what needs no acknowledgement first."""
        for table in ROW_TABLES:
            if table != DUPLICATES:
                self._tables[table].send()

    def settle(self) -> dict[str, int]:
        """Sends the rest and returns the next stream offset per table when everything is
        acknowledged.
        """
        self.send_rest()
        self._send(DUPLICATES)
        for appends in self._tables.values():
            appends.settle(appends.added)
        return {table: appends.acknowledged for table, appends in self._tables.items()}

    def _send(self, table: str) -> None:
        if table == DUPLICATES and self._tables[table].added > self._tables[table].acknowledged:
            self._before_duplicates()
        self._tables[table].send()
