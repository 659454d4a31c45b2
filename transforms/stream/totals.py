"""Step 4 of streaming, totals: one shard of its own writes `control_totals`, under the same
protocol.

A key is (window, outcome, currency). The state holds what is *owed* per key: what came downstream,
minus what is in the table. It is written once, when the watermark closes the window; what comes
later for a closed window (a late record is counted in the window of its event time) is owed again,
and is a further row at the next close.

A restored state owes what came before its checkpoint; recovery takes off what the table holds
beyond it. A replay may owe less than that for a while, since it has not come so far yet: then
nothing is written until it has passed it. It may owe more, since its windows close later in the
order of records: then the difference is written. In the end the rows of a key add up to what the
three tables hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

import msgspec
import pyarrow as pa

from transforms.deduplicate.process_memory import ProcessMemory, fresh_token
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import TOTALS_SHARD, Job, Progress
from transforms.model.buckets import BUCKET_US
from transforms.model.tables import TIMESTAMP, TOTALS, TOTALS_TABLE_SCHEMA
from transforms.stream.append import TableAppends
from transforms.stream.recover import Polling
from transforms.stream.recover_single import recover_single
from transforms.stream.state import StateCells

_CHECKSUM_MASK: Final = (1 << 60) - 1

Key = tuple[int, str, str | None]
"""Start of the window in microseconds, outcome, currency."""


class Unwritten(msgspec.Struct, array_like=True):
    """What a key still lacks in the table; below zero: what the table holds and the replay has not
    brought again yet.
    """

    records: int
    amount: Decimal | None
    checksum: int

    def plus(self, more: Unwritten) -> Unwritten:
        amounts = [amount for amount in (self.amount, more.amount) if amount is not None]
        return Unwritten(
            self.records + more.records,
            sum(amounts, Decimal(0)) if amounts else None,
            self.checksum + more.checksum & _CHECKSUM_MASK,
        )

    def negative(self) -> Unwritten:
        return Unwritten(
            -self.records,
            None if self.amount is None else -self.amount,
            -self.checksum & _CHECKSUM_MASK,
        )

    def is_nothing(self) -> bool:
        return not self.records and not self.amount and not self.checksum


class TotalsHead(msgspec.Struct, array_like=True):
    """The cell `head`. Frozen by tests/unit/stream/test_state.py."""

    token: bytes
    progress: Progress
    stream: str
    owed: list[tuple[Key, Unwritten]]


class TotalsShard:
    """The shard within one bundle: add, close, finish. What fails here fails the bundle, and its
    cell stays as it was.
    """

    def __init__(
        self,
        destination: Destination,
        job: Job,
        cells: StateCells,
        memory: ProcessMemory[TotalsHead],
        polling: Polling,
    ) -> None:
        self._cells = cells
        self._memory = memory
        encoded = cells.read_head()
        self._head = (
            msgspec.msgpack.decode(encoded, type=TotalsHead) if encoded is not None else None
        )
        known = self._head is not None and memory.take(TOTALS_SHARD, self._head.token) is not None
        self._owed: dict[Key, Unwritten] = dict(self._head.owed) if self._head else {}
        if self._head is None or not known:
            self._head = self._recover(destination, job, self._head, polling)
        progress = self._head.progress
        self._appends = TableAppends(
            destination, TOTALS, self._head.stream, progress.next_offsets[TOTALS], polling
        )

    def add(self, totals: pa.RecordBatch) -> None:
        """Rows of control_totals from downstream of the row shards, present ones included."""
        for key, one in _entries(totals):
            self._owe(key, one)

    def close(self, watermark_us: int) -> None:
        """The watermark has reached this time: every window that ends at or before it is written."""
        assert self._head is not None
        due = [
            (key, one)
            for key, one in sorted(self._owed.items(), key=_order)
            if key[0] + BUCKET_US <= watermark_us and one.records > 0
        ]
        if due:
            first = self._appends.added
            self._appends.add(_rows(due, self._head.progress.epoch, first))
            self._appends.send()
            for key, _ in due:
                del self._owed[key]

    def finish(self) -> None:
        """Waits for every append and writes the state."""
        assert self._head is not None
        self._appends.settle(self._appends.added)
        head = self._head
        head.progress.next_offsets = {TOTALS: self._appends.acknowledged}
        head.token, head.owed = fresh_token(), sorted(self._owed.items(), key=_order)
        self._cells.write_head(msgspec.msgpack.encode(head))
        self._memory.keep(TOTALS_SHARD, head.token, head)

    def _recover(
        self, destination: Destination, job: Job, head: TotalsHead | None, polling: Polling
    ) -> TotalsHead:
        def look(begin: Progress) -> pa.Table:
            return destination.rows.totals_since(begin.epoch, begin.next_offsets.get(TOTALS, 0))

        taken = recover_single(
            destination, job, TOTALS_SHARD, TOTALS, head.progress if head else None, look, polling
        )
        for batch in taken.present.to_batches():
            for key, one in _entries(batch):
                self._owe(key, one.negative())
        return TotalsHead(b"", taken.progress, taken.stream, [])

    def _owe(self, key: Key, more: Unwritten) -> None:
        owed = self._owed[key].plus(more) if key in self._owed else more
        if owed.is_nothing():
            self._owed.pop(key, None)
        else:
            self._owed[key] = owed


def _entries(totals: pa.RecordBatch) -> Iterator[tuple[Key, Unwritten]]:
    starts = totals.column("window_start").cast(TIMESTAMP).view(pa.int64()).to_pylist()
    names = ("outcome", "currency", "records", "amount", "checksum")
    columns = [totals.column(name).to_pylist() for name in names]
    for start, outcome, currency, records, amount, checksum in zip(starts, *columns, strict=True):
        yield (start, outcome, currency), Unwritten(records, amount, checksum)


def _rows(due: list[tuple[Key, Unwritten]], epoch: int, first: int) -> pa.RecordBatch:
    rows: list[dict[str, Any]] = [
        {
            "window_start": start, "outcome": outcome, "currency": currency, "records": one.records, "amount": one.amount,
            "checksum": one.checksum, "stream_epoch": epoch, "stream_offset": first + at,
        }
        for at, ((start, outcome, currency), one) in enumerate(due)
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, schema=TOTALS_TABLE_SCHEMA)


def _order(entry: tuple[Key, Unwritten]) -> tuple[int, str, str]:
    (start, outcome, currency), _ = entry
    return (start, outcome, currency or "")
