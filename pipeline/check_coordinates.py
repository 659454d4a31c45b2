"""Every coordinate below the committed position: in exactly one row, or in exactly one gap, and the ones that the reader delivered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.check_result import FAILED, PASSED, PROOF_ROWS, CheckResult
from pipeline.check_sql import GAPS_OF_PARTITION, OFFSETS, PARTITIONS
from transforms.coordinates import coordinate_hashes
from transforms.run_record import COMMITTED, PREPARED, PartitionProgress, RunRecord

_HASH_MASK: Final = (1 << 64) - 1


class Queryable(Protocol):
    """A destination that answers SQL."""

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table: ...


@dataclass
class Findings:
    """Per kind of failure: how many, and the first few."""

    what: str
    count: int = 0
    proof: list[dict[str, Any]] = field(default_factory=list)

    def add(self, topic: str, partition: int, offsets: NDArray[np.int64], **more: Any) -> None:
        self.count += len(offsets)
        for offset in offsets[: PROOF_ROWS - len(self.proof)].tolist():
            self.proof.append({"kafka_topic": topic, "kafka_partition": partition, "kafka_offset": offset, **more})

    def result(self, name: str, good: str) -> CheckResult:
        return CheckResult(name, FAILED if self.count else PASSED, f"{self.count:,} {self.what}" if self.count else good, self.proof)


def check_coordinates(destination: Queryable, runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Judges the ranges of COMMITTED runs; those of a PREPARED run are in flight, anything else should not be there."""
    repeated, missing = Findings("coordinates with more than one row"), Findings("coordinates without a row and without a gap")
    both, surplus = Findings("coordinates in a gap and in a row, or in two gaps"), Findings("coordinates that no run has read")
    unlike = Findings("ranges that are not what the reader delivered")
    rows_seen = 0
    for topic, partition in _partitions(destination, runs):
        where = {"topic": topic, "partition": partition}
        offsets = destination.query(OFFSETS, where).column("kafka_offset").to_numpy()
        gaps = destination.query(GAPS_OF_PARTITION, where)
        first, last = gaps.column("first_offset").to_numpy(), gaps.column("last_offset").to_numpy()
        committed, in_flight = _ranges(runs, topic, partition, COMMITTED), _ranges(runs, topic, partition, PREPARED)
        rows_seen += len(offsets)
        repeated.add(topic, partition, np.unique(offsets[1:][offsets[1:] == offsets[:-1]]))
        both.add(topic, partition, _in_gap_twice(offsets, first, last))
        known = [*committed, *in_flight]
        surplus.add(topic, partition, offsets[~_inside(offsets, known)])
        surplus.add(topic, partition, first[~(_inside(first, known) & _inside(last, known))], of="offset_gaps")
        hashes = np.concatenate([np.zeros(1, np.uint64), np.cumsum(coordinate_hashes(topic, partition, offsets), dtype=np.uint64)])
        for part in committed:
            begin, end = np.searchsorted(offsets, [part.from_offset, part.to_offset])
            absent = _absent(offsets[begin:end], first, last, part)
            missing.add(topic, partition, absent)
            delivered = (part.records, part.coordinate_hash)
            if delivered != (end - begin, (int(hashes[end]) - int(hashes[begin])) & _HASH_MASK):
                found = {"delivered": part.records, "rows": int(end - begin)}
                unlike.add(topic, partition, np.array([part.from_offset]), to_offset=part.to_offset, **found)
    yield repeated.result("no coordinate twice over the three tables", f"{rows_seen:,} rows, each at its own coordinate")
    yield missing.result("no coordinate missing", "every offset below the committed positions is a row or a gap")
    yield both.result("no gap where a row is", "rows and gaps are apart")
    yield surplus.result("no row that no run has read", "every row lies in the range of a run")
    yield unlike.result("the tables hold what the reader delivered", "records and hashes of coordinates agree for every run and partition")


def _partitions(destination: Queryable, runs: Sequence[RunRecord]) -> list[tuple[str, int]]:
    found = destination.query(PARTITIONS)
    named = {(part.topic, part.partition) for run in runs for part in run.partitions}
    return sorted(named | set(zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True)))


def _ranges(runs: Sequence[RunRecord], topic: str, partition: int, status: str) -> list[PartitionProgress]:
    """Of COMMITTED runs in the order of the chain, so in the order of offsets."""
    return [
        part
        for run in runs
        if run.status == status
        for part in run.partitions
        if (part.topic, part.partition) == (topic, partition) and part.to_offset > part.from_offset
    ]


def _inside(offsets: NDArray[np.int64], ranges: Sequence[PartitionProgress]) -> NDArray[np.bool_]:
    inside = np.zeros(len(offsets), dtype=bool)
    for part in ranges:
        inside |= (offsets >= part.from_offset) & (offsets < part.to_offset)
    return inside


def _in_gap_twice(offsets: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows that lie in a gap, and the starts of gaps that overlap the gap before; gaps come sorted by their first offset."""
    reached = np.maximum.accumulate(last) if len(last) else last
    before = np.searchsorted(first, offsets, side="right") - 1
    in_gap = (before >= 0) & (offsets <= reached[before]) if len(first) else np.zeros(len(offsets), dtype=bool)
    return np.concatenate([offsets[in_gap], first[1:][first[1:] <= reached[:-1]]])


def _absent(present: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64], part: PartitionProgress) -> NDArray[np.int64]:
    covered = np.zeros(part.to_offset - part.from_offset, dtype=bool)
    covered[present - part.from_offset] = True
    begin, end = np.searchsorted(last, part.from_offset), np.searchsorted(first, part.to_offset)
    for start, stop in zip(first[begin:end].tolist(), last[begin:end].tolist(), strict=True):
        covered[max(0, start - part.from_offset) : max(0, stop + 1 - part.from_offset)] = True
    return np.flatnonzero(~covered) + part.from_offset
