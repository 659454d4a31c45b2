"""One bundle of streaming over the shards of a process: open, process, finish.

Shards that the process does not hold are recovered together, with one claim and one query. A bundle
that fails leaves nothing behind in the process: what it took out of the memory is not put back, so
its next attempt recovers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from transforms.deduplicate.known_ids import ColdStart, load_ids_of_shards
from transforms.deduplicate.outcome import RowShape
from transforms.deduplicate.process_memory import ProcessMemory
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job
from transforms.model.elements import GapAnswer, StreamBatch
from transforms.model.tables import ROW_TABLES
from transforms.stream.append import ShardAppends
from transforms.stream.polling import Polling
from transforms.stream.present_totals import PresentTotals
from transforms.stream.recover import ShardStart, recover
from transforms.stream.shard import OpenShard, ShardMemory
from transforms.stream.state import StateCells, StateSettings, StreamHead


@dataclass(frozen=True)
class StreamSettings:
    """Settings shared by all shards of a job.

    cold_start: what a shard without state loads; None: the destination was empty when the job
    began. now_us: clock for `ingest_time`, microseconds since 1970.
    """

    job: Job
    state: StateSettings
    amount_column: str | None
    currency_column: str | None
    cold_start: ColdStart | None
    polling: Polling
    now_us: Callable[[], int]


@dataclass(frozen=True)
class FinishedBundle:
    """What goes on to the next steps, once it is in the tables and in the states.

    totals: shard -> rows of control_totals. answers: for GapsShard. late_behind_expiry: payments
    that the backstop has rejected; expected 0. recovered_shards: that this process did not hold;
    present_rows: that their recovery has found. live_ids: shard -> ids in its state; state_bytes:
    shard -> what they take there.
    """

    totals: dict[int, pa.RecordBatch]
    answers: list[GapAnswer]
    late_behind_expiry: int
    recovered_shards: int
    present_rows: int
    live_ids: dict[int, int]
    state_bytes: dict[int, int]


class StreamBundle:
    """The shards of one bundle.

    Called in this order: `open` once with every shard of the bundle; `process` and `expire` in any
    order; `finish` once. Each may raise Superseded, StreamGone or GuaranteeError;
    then the bundle has failed.
    """

    def __init__(
        self,
        destination: Destination,
        settings: StreamSettings,
        memory: ProcessMemory[ShardMemory],
    ) -> None:
        self._destination = destination
        self._settings = settings
        self._memory = memory
        self._shards: dict[int, OpenShard] = {}
        self._recovered = self._present = 0

    def open(self, cells: Mapping[int, StateCells]) -> None:
        """Step 1 for every shard whose state is not the one that this process wrote last."""
        settings = self._settings
        # Any process may come to hold all shards, and the two that write totals and gaps.
        self._destination.streams.make_room(len(ROW_TABLES) * settings.state.shards + 2)
        to_recover = []
        for number, its_cells in cells.items():
            shard = OpenShard(number, settings.state, its_cells)
            self._shards[number] = shard
            memory = self._memory.take(number, shard.token)
            if memory is not None:
                shard.go_on(memory)
            else:
                to_recover.append(shard.start())
        if to_recover:
            self._recover(to_recover)

    def _recover(self, starts: list[ShardStart]) -> None:
        settings, shards = self._settings, self._settings.state.shards
        taken = recover(self._destination, settings.job, shards, starts, settings.polling)
        cold_start = settings.cold_start
        new = [start.shard for start in starts if start.progress is None]
        # All of them with one query, and in memory until the shards have their indexes.
        known = (
            load_ids_of_shards(self._destination, cold_start, new, shards)
            if cold_start is not None and new
            else None
        )
        self._recovered = len(taken)
        self._present = sum(sum(each.progress.present.values()) for each in taken)
        for recovered in taken:
            self._shards[recovered.shard].take_over(recovered, cold_start, known)

    def process(self, shard: int, batch: StreamBatch) -> None:
        """Steps 2 and 3 for what a shard gets in this bundle: best in one call, see `merge`."""
        self._shards[shard].process(batch, self._appends, self._totals())

    def expire(self, shard: int, watermark_us: int) -> None:
        """A timer of the shard. It needs the shard to be open, like a batch: docs/streaming.md."""
        self._shards[shard].expire(watermark_us)

    def finish(self) -> FinishedBundle:
        """Waits until all appends are acknowledged, and writes the states."""
        totals, answers = {}, []
        # The last appends of all shards are in flight together.
        for shard in self._shards.values():
            shard.send_rest()
        for shard in self._shards.values():
            shard.send_duplicates()
        for number, shard in self._shards.items():
            token, memory, its_totals = shard.finish()
            self._memory.keep(number, token, memory)
            if its_totals is not None:
                totals[number] = its_totals
            if shard.gap_answer is not None:
                answers.append(shard.gap_answer)
        behind = sum(shard.late_behind_expiry for shard in self._shards.values())
        live = {number: shard.live_ids for number, shard in self._shards.items()}
        size = {number: shard.state_bytes for number, shard in self._shards.items()}
        return FinishedBundle(totals, answers, behind, self._recovered, self._present, live, size)

    def next_expiry(self, shard: int) -> int | None:
        """The watermark, in microseconds, at which the shard's oldest ids expire; None: never."""
        return self._shards[shard].next_expiry()

    def claimed(self) -> tuple[int, str] | None:
        """A shard that this process has claimed, and the nonce of the claim; None without one."""
        nonces = {number: shard.nonce for number, shard in self._shards.items()}
        return next(((number, nonce) for number, nonce in nonces.items() if nonce), None)

    def _totals(self) -> PresentTotals:
        shape = RowShape(
            self._settings.now_us(), self._settings.amount_column, self._settings.currency_column
        )
        return PresentTotals(shape, self._destination.rows)

    def _appends(self, head: StreamHead) -> ShardAppends:
        return ShardAppends(
            self._destination, head.streams, head.progress.next_offsets, self._settings.polling
        )
