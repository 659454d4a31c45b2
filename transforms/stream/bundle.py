"""One bundle over the shards of a process: opens them, recovers with one claim and one query those
that it does not hold, and closes them.

A bundle that fails leaves nothing behind in the process: what it took out of the memory is not put
back, so its next attempt recovers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.deduplicate.known_ids import ColdStart
from transforms.deduplicate.outcome import RowShape
from transforms.deduplicate.process_memory import ProcessMemory
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job
from transforms.model.elements import ShardBatch
from transforms.stream.append import ShardAppends
from transforms.stream.present_totals import PresentTotals
from transforms.stream.recover import Polling, recover
from transforms.stream.shard import OpenShard, ShardMemory
from transforms.stream.state import StateCells, StateSettings, StreamHead


@dataclass(frozen=True)
class StreamSettings:
    """What all shards of a job have alike.

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


class StreamBundle:
    """Called in this order: `open` once with every shard of the bundle, `process` and `expire` in
    any order, `finish` once.
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

    def open(self, cells: Mapping[int, StateCells]) -> None:
        """Step 1 for every shard whose state is not the one that this process wrote last."""
        settings = self._settings
        foreign = []
        for shard, its_cells in cells.items():
            one = self._shards[shard] = OpenShard(
                shard, settings.state, its_cells, settings.cold_start
            )
            kept = self._memory.take(shard, one.token)
            if kept is not None:
                one.go_on(kept)
            else:
                foreign.append(one)
        if foreign:
            starts = [one.start() for one in foreign]
            for one, found in zip(
                foreign,
                recover(
                    self._destination,
                    settings.job,
                    settings.state.shards,
                    starts,
                    settings.polling,
                ),
                strict=True,
            ):
                one.take_over(found)

    def process(self, shard: int, batch: ShardBatch) -> None:
        """Steps 2 and 3. May raise Superseded, StreamGone or GuaranteeError; then the bundle has
        failed.
        """
        self._shards[shard].process(batch, self._appends, self._totals())

    def pass_gap(
        self, shard: int, topic: str, partition: int, first: int, last: int
    ) -> NDArray[np.int64]:
        """Offsets of the gap that are present in this shard. The gap without those of all shards
        may be written: see stream_gaps.py.
        """
        return self._shards[shard].pass_gap(topic, partition, first, last, self._totals())

    def expire(self, shard: int, watermark_us: int) -> None:
        """A timer of the shard: like any other bundle it needs the shard to be recovered first, see
        docs/streaming.md.
        """
        self._shards[shard].expire(watermark_us)

    def finish(self) -> dict[int, pa.RecordBatch]:
        """Returns when every append is acknowledged and every state is written: shard -> rows of
        control_totals.
        """
        totals = {}
        for one in self._shards.values():
            one.send_rest()
        for shard, one in self._shards.items():
            token, memory, its_totals = one.finish()
            self._memory.keep(shard, token, memory)
            if its_totals is not None:
                totals[shard] = its_totals
        return totals

    def _totals(self) -> PresentTotals:
        shape = RowShape(
            self._settings.now_us(), self._settings.amount_column, self._settings.currency_column
        )
        return PresentTotals(shape, self._destination.rows)

    def _appends(self, head: StreamHead) -> ShardAppends:
        return ShardAppends(
            self._destination, head.streams, head.progress.next_offsets, self._settings.polling
        )
