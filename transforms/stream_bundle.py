"""One bundle over the shards of a process: opens them, recovers with one claim and one query those that it does not hold, and closes them.

A bundle that fails leaves nothing behind in the process: what it took out of the memory is not put back, so its next attempt recovers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from transforms.batch import ShardBatch
from transforms.known_ids import ColdStart
from transforms.outcome import RowShape
from transforms.shard_ledger import Job
from transforms.stream_append import ShardAppends
from transforms.stream_recover import Patience, StreamingDestination, recover
from transforms.stream_shard import OpenShard, ShardMemory
from transforms.stream_state import StateCells, StateSettings, StreamHead
from transforms.stream_totals import TotalsSource


class ShardDestination(StreamingDestination, TotalsSource, Protocol):
    """A destination for the shards of the three row tables."""


@dataclass(frozen=True)
class StreamSettings:
    """What all shards of a job have alike.

    cold_start: what a shard without state loads; None: the destination was empty when the job began.
    now_us: clock for `ingest_time`, microseconds since 1970.
    """

    job: Job
    state: StateSettings
    amount_column: str | None
    currency_column: str | None
    cold_start: ColdStart | None
    patience: Patience
    now_us: Callable[[], int]


@dataclass
class ProcessMemory:
    """What a process remembers of its shards between bundles: at most one memory a shard, with the token of the state it goes with."""

    _kept: dict[int, tuple[bytes, ShardMemory]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, shard: int, token: bytes | None) -> ShardMemory | None:
        """The memory for exactly this state, which is forgotten here; whatever else was kept of the shard is dropped."""
        with self._lock:
            kept = self._kept.pop(shard, None)
        return kept[1] if kept and kept[0] == token else None

    def keep(self, shard: int, token: bytes, memory: ShardMemory) -> None:
        with self._lock:
            self._kept[shard] = (token, memory)


class StreamBundle:
    """Called in this order: `open` once with every shard of the bundle, `process` and `expire` in any order, `finish` once."""

    def __init__(self, destination: ShardDestination, settings: StreamSettings, memory: ProcessMemory) -> None:
        self._destination = destination
        self._settings = settings
        self._memory = memory
        self._shards: dict[int, OpenShard] = {}

    def open(self, cells: Mapping[int, StateCells]) -> None:
        """Step 1 for every shard whose state is not the one that this process wrote last."""
        settings = self._settings
        foreign = []
        for shard, its_cells in cells.items():
            one = self._shards[shard] = OpenShard(shard, settings.state, its_cells, settings.cold_start)
            kept = self._memory.take(shard, one.token)
            if kept is not None:
                one.go_on(kept)
            else:
                foreign.append(one)
        if foreign:
            starts = [one.start() for one in foreign]
            for one, found in zip(
                foreign, recover(self._destination, settings.job, settings.state.shards, starts, settings.patience), strict=True
            ):
                one.take_over(found)

    def process(self, shard: int, batch: ShardBatch) -> None:
        """Steps 2 and 3. May raise Superseded, StreamGone or GuaranteeError; then the bundle has failed."""
        settings = self._settings
        shape = RowShape(settings.now_us(), settings.amount_column, settings.currency_column)
        self._shards[shard].process(batch, self._appends, shape, self._destination)

    def expire(self, shard: int, watermark_us: int) -> None:
        """A timer of the shard: like any other bundle it needs the shard to be recovered first, see docs/streaming.md."""
        self._shards[shard].expire(watermark_us)

    def finish(self) -> dict[int, pa.RecordBatch]:
        """Returns when every append is acknowledged and every state is written: shard -> rows of control_totals."""
        totals = {}
        for one in self._shards.values():
            one.send_rest()
        for shard, one in self._shards.items():
            token, memory, its_totals = one.finish()
            self._memory.keep(shard, token, memory)
            if its_totals is not None:
                totals[shard] = its_totals
        return totals

    def _appends(self, head: StreamHead) -> ShardAppends:
        return ShardAppends(self._destination, head.streams, head.progress.next_offsets, self._settings.patience)
