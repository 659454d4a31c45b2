"""A runner as Flink is one, as a plain loop: checkpoints of positions and state between bundles, kills, restores, zombies."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tests.stream_faults import Kill, Network, UnreliableDestination
from tests.stream_log import HORIZON, TOPIC, Sent, Source
from transforms.known_ids import ColdStart
from transforms.shard import split_by_shard
from transforms.shard_ledger import Job
from transforms.stream_adopt import adopt
from transforms.stream_bundle import ProcessMemory, StreamBundle, StreamSettings
from transforms.stream_recover import Patience
from transforms.stream_state import StateSettings

NOW_US = 1_790_000_000_000_000
PATIENCE = Patience(tries=3, seconds=1.0, sleep=lambda _: None)


@dataclass
class DictCells:
    """The cells of one shard in a dict; a bundle works on a copy."""

    head: bytes | None = None
    slots: dict[int, list[bytes]] = field(default_factory=dict)

    def read_head(self) -> bytes | None:
        return self.head

    def write_head(self, cell: bytes) -> None:
        self.head = cell

    def read_blobs(self) -> list[bytes]:
        return [blob for blobs in self.slots.values() for blob in blobs]

    def add_blob(self, slot: int, blob: bytes) -> None:
        self.slots.setdefault(slot, []).append(blob)

    def clear_slot(self, slot: int) -> None:
        self.slots.pop(slot, None)


@dataclass
class Checkpoint:
    """Positions, watermarks and state of one moment between two bundles, and the totals that went downstream before it."""

    source: Source
    cells: dict[int, DictCells]
    totals: list[pa.RecordBatch]

    def copy(self) -> Checkpoint:
        return Checkpoint(self.source.copy(), copy.deepcopy(self.cells), list(self.totals))


def state_settings(shards: int, **changes: Any) -> StateSettings:
    values = {
        "shards": shards, "layout": "sharded", "dedup_horizon_us": HORIZON, "extra_retention_us": 0, "max_future_skew_us": 0,
        "decoder_version": 1, "dedup_key": "transaction_id", "event_time_field": "event_time",
    }  # fmt: skip
    return StateSettings(**{**values, **changes})


class Attempt:
    """One life of a job: its processes share `processes` memories, and each has the shards of its number."""

    def __init__(self, destination: UnreliableDestination, settings: StreamSettings, start: Checkpoint, processes: int = 1) -> None:
        self.destination = destination
        self.settings = settings
        self.now = start.copy()
        self._memories = [ProcessMemory() for _ in range(processes)]

    def bundle(self, reads: Sequence[tuple[int, int]]) -> None:
        """Reads (partition, records) one after the other. Raises what the protocol raises; then nothing of the bundle counts."""
        after = self.now.copy()
        elements: list[tuple[int, Any]] = []
        for partition, records in reads:
            elements += split_by_shard(after.source.read(partition, records), self.settings.state.shards)
        watermark = after.source.minimum()
        for number, memory in enumerate(self._memories):
            mine = [(shard, batch) for shard, batch in elements if shard % len(self._memories) == number]
            timers = {shard for shard in after.cells if shard % len(self._memories) == number and after.cells[shard].head}
            shards = sorted({shard for shard, _ in mine} | (timers if watermark is not None else set()))
            if not shards:
                continue
            bundle = StreamBundle(self.destination, self.settings, memory)
            bundle.open({shard: after.cells.setdefault(shard, DictCells()) for shard in shards})
            for shard, batch in mine:
                bundle.process(shard, batch)
            if watermark is not None:
                for shard in shards:
                    bundle.expire(shard, watermark)
            after.totals += bundle.finish().values()
        self.now = after

    def checkpoint(self) -> Checkpoint:
        return self.now.copy()


class Cluster:
    """A destination, a log, and the attempts at reading the one into the other."""

    def __init__(self, destination: Any, log: list[list[Sent]], shards: int = 2, processes: int = 1) -> None:
        self.real = destination
        self.log = log
        self.shards = shards
        self.processes = processes
        self.network = Network()
        destination.create_shard_ledger(shards)
        self.generation = 0
        self.job = self.begin_job()

    def begin_job(self) -> Job:
        self.job = self.real.begin_job(secrets.token_hex(8), self.generation)
        self.generation = self.job.generation
        return self.job

    def settings(self, cold_start: Any = None) -> StreamSettings:
        return StreamSettings(self.job, state_settings(self.shards), "amount", "currency", cold_start, PATIENCE, lambda: NOW_US)

    def nothing(self) -> Checkpoint:
        return Checkpoint(Source(self.log), {}, [])

    def adopt(self, through: Any = None) -> tuple[Checkpoint, ColdStart]:
        """A new job without a checkpoint: where it begins, and what its shards load. through: the destination as this driver sees it."""
        begins = {(TOPIC, partition): 0 for partition in range(len(self.log))}
        found = adopt(through or self.real, self.job, self.shards, begins, HORIZON, PATIENCE)
        positions = {partition: offset for (_, partition), offset in found.positions.items()}
        watermarks = {partition: mark for (_, partition), mark in found.watermarks.items()}
        cold_start = ColdStart(self.real, secrets.token_hex(8), found.lowest_watermark_us, 0)
        return Checkpoint(Source(self.log, positions, watermarks), {}, []), cold_start

    def start(self, checkpoint: Checkpoint, *, kill: Kill | None = None, cold_start: Any = None, **faults: Any) -> Attempt:
        destination = UnreliableDestination(self.real, self.network, kill, **faults)
        return Attempt(destination, self.settings(cold_start), checkpoint, self.processes)


def read_to_the_end(attempt: Attempt, at_once: int = 3) -> None:
    """Every partition in turn, so many records a bundle."""
    while left := [partition for partition in range(len(attempt.now.source.log)) if attempt.now.source.left(partition)]:
        attempt.bundle([(partition, at_once) for partition in left])
