"""Step 4 of streaming, totals: a shard of its own writes `control_totals`.

The protocol is that of the other shards. A key is (window, outcome, currency). The state holds what
is *unwritten* per key: what came downstream, minus what is in the table. It is written once, when
the watermark closes the window. What comes later for a closed window (a late record is counted in
the window of its event time) is unwritten again, and becomes a further row at the next close.

A restored state holds what was unwritten at its checkpoint; recovery subtracts what the table has
got since. A replay that has not come so far yet is below that: then nothing is written until it has
passed it. It may be above, since its windows close later in the order of records: then the
difference is written. In the end the rows of a key add up to what the three tables hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from transforms.deduplicate.process_memory import ProcessMemory, fresh_token
from transforms.destinations.appends import TableAppends
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import TOTALS_SHARD, Job, Progress
from transforms.model.buckets import BUCKET_US
from transforms.model.tables import TIMESTAMP, TOTALS, TOTALS_TABLE_SCHEMA
from transforms.model.totals import CHECKSUM_MASK
from transforms.stream.polling import Polling
from transforms.stream.recover_single import recover_single
from transforms.stream.refusals import ProveOrResend
from transforms.stream.state import StateCells

Key = tuple[int, str, str | None]
"""Start of the window in microseconds, outcome, currency."""


class Unwritten(msgspec.Struct, array_like=True):
    """What a key still lacks in the table.

    Below zero: what the table holds and the replay has not brought again yet.
    """

    records: int
    amount: Decimal | None
    checksum: int

    def plus(self, more: Unwritten) -> Unwritten:
        """The sum; an amount that neither has stays None."""
        amounts = [amount for amount in (self.amount, more.amount) if amount is not None]
        return Unwritten(
            self.records + more.records,
            sum(amounts, Decimal(0)) if amounts else None,
            self.checksum + more.checksum & CHECKSUM_MASK,
        )

    def negative(self) -> Unwritten:
        """What `plus` adds up with this to nothing."""
        return Unwritten(
            -self.records,
            None if self.amount is None else -self.amount,
            -self.checksum & CHECKSUM_MASK,
        )

    def is_nothing(self) -> bool:
        """Whether the table holds exactly what came."""
        return not self.records and not self.amount and not self.checksum


class TotalsHead(msgspec.Struct, array_like=True):
    """The cell `head`. Frozen by tests/unit/stream/test_state.py."""

    token: bytes
    progress: Progress
    stream: str
    unwritten: list[tuple[Key, Unwritten]]


class TotalsShard:
    """The shard within one bundle: add, close, finish.

    What fails here fails the bundle, and its cell stays as it was.
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
        self._unwritten = dict(self._head.unwritten) if self._head else {}
        if self._head is None or not known:
            self._head = self._recover(destination, job, self._head, polling)
        progress = self._head.progress
        policy = ProveOrResend(destination.rows.count_present, polling)
        self._appends = TableAppends(
            destination.streams, TOTALS, policy, self._head.stream, progress.next_offsets[TOTALS]
        )

    def add(self, totals: pa.RecordBatch) -> None:
        """Rows of control_totals from downstream of the row shards, present ones included."""
        for key, more in _entries(totals):
            self._add(key, more)

    def close(self, watermark_us: int) -> None:
        """Writes every window that ends at or before the watermark, in microseconds."""
        assert self._head is not None
        due = [
            (key, unwritten)
            for key, unwritten in sorted(self._unwritten.items(), key=_order)
            if key[0] + BUCKET_US <= watermark_us and unwritten.records > 0
        ]
        if due:
            first = self._appends.added
            self._appends.add(_rows(due, self._head.progress.epoch, first))
            self._appends.send()
            for key, _ in due:
                del self._unwritten[key]

    def closes(self) -> dict[str, int]:
        """Name -> a watermark, in microseconds, that closes unwritten windows.

        Those of the oldest window, of the newest, and of some between, ever further apart: so
        whatever a watermark passes at once is closed in a few steps, and there are few of them.
        """
        starts = sorted(
            {key[0] for key, unwritten in self._unwritten.items() if unwritten.records > 0}
        )
        places = [(1 << power) - 1 for power in range(len(starts).bit_length())]
        return {
            **{str(place or ""): starts[place] + BUCKET_US for place in places},
            **({"newest": starts[-1] + BUCKET_US} if starts else {}),
        }

    def finish(self) -> None:
        """Waits for every append and writes the state."""
        assert self._head is not None
        self._appends.settle(self._appends.added)
        head = self._head
        head.progress.next_offsets = {TOTALS: self._appends.acknowledged}
        head.token, head.unwritten = fresh_token(), sorted(self._unwritten.items(), key=_order)
        self._cells.write_head(msgspec.msgpack.encode(head))
        self._memory.keep(TOTALS_SHARD, head.token, head)

    def _recover(
        self, destination: Destination, job: Job, head: TotalsHead | None, polling: Polling
    ) -> TotalsHead:
        def look(begin: Progress) -> pa.Table:
            return destination.rows.totals_since(begin.epoch, begin.next_offsets.get(TOTALS, 0))

        taken = recover_single(
            destination,
            job,
            TOTALS_SHARD,
            TOTALS,
            head.progress if head else None,
            look,
            polling,
            passed_at_once=True,
        )
        for batch in taken.present.to_batches():
            for key, written in _entries(batch):
                self._add(key, written.negative())
        return TotalsHead(b"", taken.progress, taken.stream, [])

    def _add(self, key: Key, more: Unwritten) -> None:
        unwritten = self._unwritten[key].plus(more) if key in self._unwritten else more
        if unwritten.is_nothing():
            self._unwritten.pop(key, None)
        else:
            self._unwritten[key] = unwritten


def _entries(totals: pa.RecordBatch) -> Iterator[tuple[Key, Unwritten]]:
    starts = totals.column("window_start").cast(TIMESTAMP).view(pa.int64()).to_pylist()
    names = ("outcome", "currency", "records", "amount", "checksum")
    columns = [totals.column(name).to_pylist() for name in names]
    for start, outcome, currency, records, amount, checksum in zip(starts, *columns, strict=True):
        yield (start, outcome, currency), Unwritten(records, amount, checksum)


def _rows(due: list[tuple[Key, Unwritten]], epoch: int, first: int) -> pa.RecordBatch:
    rows: list[dict[str, Any]] = [
        {
            "window_start": start, "outcome": outcome, "currency": currency,
            "records": unwritten.records, "amount": unwritten.amount,
            "checksum": unwritten.checksum, "stream_epoch": epoch, "stream_offset": first + at,
        }
        for at, ((start, outcome, currency), unwritten) in enumerate(due)
    ]  # fmt: skip
    return pa.RecordBatch.from_pylist(rows, schema=TOTALS_TABLE_SCHEMA)


def _order(entry: tuple[Key, Unwritten]) -> tuple[int, str, str]:
    (start, outcome, currency), _ = entry
    return (start, outcome, currency or "")
