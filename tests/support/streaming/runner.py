"""A runner as Flink is one, as a plain loop: checkpoints of positions and state between bundles,
kills, restores, zombies.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from tests.support.streaming.faults import Kill, Network, UnreliableDestination
from tests.support.streaming.log import HORIZON, TOPIC, Sent, Source
from transforms.deduplicate.known_ids import ColdStart
from transforms.deduplicate.process_memory import ProcessMemory
from transforms.destinations.contract.shard_ledger import GAPS_SHARD, TOTALS_SHARD, Job
from transforms.model.elements import Covered, DecodedBlock, GapAnswer, StreamBatch, merge
from transforms.model.fingerprints import split_for_stream
from transforms.stream.adopt import adopt
from transforms.stream.bundle import FinishedBundle, StreamBundle, StreamSettings
from transforms.stream.gaps import GapsShard
from transforms.stream.polling import Polling
from transforms.stream.state import StateSettings
from transforms.stream.totals import TotalsShard

FOR_EVER = 10**15
NOW_US = 1_790_000_000_000_000
PATIENCE = Polling(tries=3, seconds=1.0, sleep=lambda _: None)


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
    """Positions, watermarks and state of one moment between two bundles. on_the_way: what a shard
    has not got yet; nothing in a checkpoint, which is aligned.
    """

    source: Source
    cells: dict[int, DictCells] = field(default_factory=dict)
    on_the_way: dict[int, list[StreamBatch]] = field(default_factory=dict)

    def copy(self) -> Checkpoint:
        on_the_way = {shard: list(batches) for shard, batches in self.on_the_way.items()}
        return Checkpoint(self.source.copy(), copy.deepcopy(self.cells), on_the_way)


def state_settings(shards: int, **changes: Any) -> StateSettings:
    values = {
        "shards": shards, "layout": "sharded", "dedup_horizon_us": HORIZON,
        "extra_retention_us": 0, "max_future_skew_us": 0, "decoder_version": 1,
        "dedup_key": "transaction_id", "event_time_field": "event_time", "epoch_units": {},
        "max_record_bytes": 1 << 20, "cluster_id": "cluster",
    }  # fmt: skip
    return StateSettings(**{**values, **changes})


class Attempt:
    """One life of a job: its processes share `processes` memories, and each has the shards of its
    number.
    """

    def __init__(
        self,
        destination: UnreliableDestination,
        settings: StreamSettings,
        start: Checkpoint,
        processes: int = 1,
    ) -> None:
        self.destination = destination
        self.settings = settings
        self.now = start.copy()
        self._memories: list[ProcessMemory[Any]] = [ProcessMemory() for _ in range(processes)]

    def bundle(self, reads: Sequence[tuple[int, int]], slow: int | None = None) -> None:
        """Reads (partition, records) one after the other. slow: the process that gets its part with
        a later bundle. Raises what the protocol raises; then nothing of the bundle counts.
        """
        after = self.now.copy()
        blocks = [
            block for partition, records in reads for block in after.source.read(partition, records)
        ]
        self._run(after, blocks, slow)
        self.now = after

    def _run(
        self, after: Checkpoint, blocks: list[tuple[DecodedBlock, Covered]], slow: int | None
    ) -> None:
        """Each process has a bundle of its own, and so have the steps behind it for what it says:
        totals and gaps come in different bundles.
        """
        shards = self.settings.state.shards
        for block, covered in blocks:
            for shard, batch in split_for_stream(block, covered, shards):
                after.on_the_way.setdefault(shard, []).append(batch)
        watermark = after.source.minimum()
        timers = {shard for shard in range(shards) if shard in after.cells}
        needed = set(after.on_the_way) | (timers if watermark is not None else set())
        totals: list[pa.RecordBatch] = []
        answers: list[list[GapAnswer]] = []
        for number, memory in enumerate(self._memories):
            mine = sorted(shard for shard in needed if shard % len(self._memories) == number)
            if mine and number != slow:
                finished = self._row_shards(after, memory, mine, watermark)
                totals += finished.totals.values()
                answers.append(finished.answers)
        if after.on_the_way:
            # The watermark of a step is that of its slowest input.
            watermark = None
        if totals or watermark is not None:
            shard = TotalsShard(
                self.destination,
                self.settings.job,
                _cells(after, TOTALS_SHARD),
                self._memories[0],
                self.settings.polling,
            )
            for each in totals:
                shard.add(each)
            if watermark is not None:
                shard.close(watermark)
            shard.finish()
        for of_one_process in answers:
            self._gaps(after, of_one_process)

    def _gaps(self, after: Checkpoint, answers: list[GapAnswer]) -> None:
        if answers:
            gaps = GapsShard(
                self.destination,
                self.settings.job,
                self.settings.state.shards,
                _cells(after, GAPS_SHARD),
                self._memories[-1],
                self.settings.polling,
            )
            for answer in answers:
                gaps.add(answer)
            gaps.finish()

    def _row_shards(
        self,
        after: Checkpoint,
        memory: ProcessMemory[Any],
        mine: list[int],
        watermark: int | None,
    ) -> FinishedBundle:
        bundle = StreamBundle(self.destination, self.settings, memory)
        bundle.open({shard: _cells(after, shard) for shard in mine})
        for shard in mine:
            if shard in after.on_the_way:
                bundle.process(shard, merge(after.on_the_way.pop(shard)))
            if watermark is not None:
                bundle.expire(shard, watermark)
        return bundle.finish()

    def checkpoint(self) -> Checkpoint:
        """Raises what the bundle raises that brings on what is on the way."""
        if self.now.on_the_way:
            self.bundle([])
        return self.now.copy()


def _cells(after: Checkpoint, shard: int) -> DictCells:
    return after.cells.setdefault(shard, DictCells())


class Cluster:
    """A destination, a log, and the attempts at reading the one into the other."""

    def __init__(
        self, destination: Any, log: list[list[Sent]], shards: int = 2, processes: int = 1
    ) -> None:
        self.real = destination
        self.log = log
        self.shards = shards
        self.processes = processes
        self.network = Network()
        destination.shards.create(shards)
        self.generation = 0
        self.job = self.begin_job()

    def begin_job(self) -> Job:
        self.job = self.real.shards.begin_job(secrets.token_hex(8), self.generation, self.shards)
        self.generation = self.job.generation
        return self.job

    def settings(self, cold_start: Any = None) -> StreamSettings:
        return StreamSettings(
            self.job,
            state_settings(self.shards),
            "amount",
            "currency",
            cold_start,
            PATIENCE,
            lambda: NOW_US,
        )

    def nothing(self) -> Checkpoint:
        return Checkpoint(Source(self.log))

    def adopt(self, through: Any = None) -> tuple[Checkpoint, ColdStart]:
        """A new job without a checkpoint: where it begins, and what its shards load. through: the
        destination as this driver sees it.
        """
        begins = {(TOPIC, partition): 0 for partition in range(len(self.log))}
        found = adopt(
            through or self.real.of_another_process(),
            self.job,
            self.shards,
            begins,
            HORIZON,
            PATIENCE,
        )
        positions = {partition: offset for (_, partition), offset in found.positions.items()}
        watermarks = {partition: mark for (_, partition), mark in found.watermarks.items()}
        cold_start = ColdStart(self.real, secrets.token_hex(8), found.lowest_watermark_us, 0)
        return Checkpoint(Source(self.log, positions, watermarks)), cold_start

    def start(
        self,
        checkpoint: Checkpoint,
        *,
        kill: Kill | None = None,
        cold_start: Any = None,
        **faults: Any,
    ) -> Attempt:
        destination = UnreliableDestination(
            self.real.of_another_process(), self.network, kill, **faults
        )
        return Attempt(destination, self.settings(cold_start), checkpoint, self.processes)


def read_to_the_end(attempt: Attempt, at_once: int = 3) -> None:
    """Every partition in turn, so many records a bundle; then the watermark closes every window."""
    while left := [
        partition
        for partition in range(len(attempt.now.source.log))
        if attempt.now.source.left(partition)
    ]:
        attempt.bundle([(partition, at_once) for partition in left])
    for partition in range(len(attempt.now.source.log)):
        attempt.now.source.idle(partition, FOR_EVER)
    attempt.bundle([])
