"""Every coordinate below the committed position: in exactly one row, or in exactly one gap, and the
ones that the reader delivered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.check.result import FAILED, PASSED, PROOF_ROWS, CheckResult
from pipeline.check.stored_coordinates import StoredCoordinates
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    PREPARED,
    PartitionProgress,
    RunRecord,
)
from transforms.model.coordinates import TopicPartition, coordinate_sum
from transforms.model.tables import GAPS


@dataclass
class Findings:
    """Per kind of failure: how many, and the first few."""

    what: str
    count: int = 0
    proof: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, topic: str, partition: int, offsets: NDArray[np.int64], **more: Iterable[Any]
    ) -> None:
        """more: columns of the proof, with at least one value an offset."""
        self.count += len(offsets)
        for offset, *values in zip(
            offsets[: PROOF_ROWS - len(self.proof)].tolist(), *more.values(), strict=False
        ):
            where = {"kafka_topic": topic, "kafka_partition": partition, "kafka_offset": offset}
            self.proof.append({**where, **dict(zip(more, values, strict=True))})

    def result(self, name: str, good: str) -> CheckResult:
        return CheckResult(
            name,
            FAILED if self.count else PASSED,
            f"{self.count:,} {self.what}" if self.count else good,
            self.proof,
        )


def check_coordinates(destination: Destination, runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Judges the ranges of COMMITTED runs; those of a PREPARED run are in flight, anything else
    should not be there.
    """
    repeated, missing = (
        Findings("coordinates with more than one row"),
        Findings("coordinates without a row and without a gap"),
    )
    both, surplus = (
        Findings("coordinates in a gap and in a row, or in two gaps"),
        Findings("coordinates that no run has read"),
    )
    unlike = Findings("ranges that are not what the reader delivered")
    rows_seen = 0
    tables = StoredCoordinates(destination)
    for where in sorted(
        tables.partitions()
        | {(part.topic, part.partition) for run in runs for part in run.partitions}
    ):
        twice, holders = tables.repeated(where)
        offsets = tables.offsets(where)
        first, last = tables.gaps(where)
        committed, in_flight = _ranges(runs, where, COMMITTED), _ranges(runs, where, PREPARED)
        known = _bounds([*committed, *in_flight])
        rows_seen += len(offsets)
        repeated.add(*where, twice, tables=holders)
        both.add(*where, _in_gap_twice(offsets, first, last))
        surplus.add(*where, offsets[~_inside(offsets, *known)])
        surplus.add(
            *where, first[~(_inside(first, *known) & _inside(last, *known))], of=repeat(GAPS)
        )
        for part in committed:
            begin, end = np.searchsorted(offsets, [part.from_offset, part.to_offset])
            missing.add(*where, _absent(offsets[begin:end], first, last, part))
            if (part.records, part.coordinate_hash) != (
                end - begin,
                coordinate_sum(*where, offsets[begin:end]),
            ):
                rows = [int(end - begin)]
                unlike.add(
                    *where,
                    np.array([part.from_offset]),
                    to_offset=[part.to_offset],
                    delivered=[part.records],
                    rows=rows,
                )
    yield repeated.result(
        "no coordinate twice over the three tables",
        f"{rows_seen:,} rows, each at its own coordinate",
    )
    yield missing.result(
        "no coordinate missing", "every offset below the committed positions is a row or a gap"
    )
    yield both.result("no gap where a row is", "rows and gaps are apart")
    yield surplus.result("no row that no run has read", "every row lies in the range of a run")
    yield unlike.result(
        "the tables hold what the reader delivered",
        "records and hashes of coordinates agree for every run and partition",
    )


def _ranges(
    runs: Sequence[RunRecord], where: TopicPartition, status: str
) -> list[PartitionProgress]:
    """Of COMMITTED runs in the order of the chain, so in the order of offsets."""
    return [
        part
        for run in runs
        if run.status == status
        for part in run.partitions
        if (part.topic, part.partition) == where and part.to_offset > part.from_offset
    ]


def _bounds(ranges: Sequence[PartitionProgress]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, last) of each range, sorted by first."""
    pairs = sorted((part.from_offset, part.to_offset - 1) for part in ranges)
    first, last = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return first, last


def _inside(
    offsets: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which offsets lie in one of the spans first .. last; they may overlap, and come sorted by
    first.
    """
    if not len(first):
        return np.zeros(len(offsets), dtype=bool)
    before = np.searchsorted(first, offsets, side="right") - 1
    inside: NDArray[np.bool_] = (before >= 0) & (offsets <= np.maximum.accumulate(last)[before])
    return inside


def _in_gap_twice(
    offsets: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Rows that lie in a gap, and the starts of gaps that overlap the gap before; gaps come sorted
    by their first offset.
    """
    return np.concatenate(
        [
            offsets[_inside(offsets, first, last)],
            first[1:][first[1:] <= np.maximum.accumulate(last)[:-1]],
        ]
    )


def _absent(
    present: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    part: PartitionProgress,
) -> NDArray[np.int64]:
    covered = np.zeros(part.to_offset - part.from_offset, dtype=bool)
    covered[present - part.from_offset] = True
    begin, end = np.searchsorted(last, part.from_offset), np.searchsorted(first, part.to_offset)
    for start, stop in zip(first[begin:end].tolist(), last[begin:end].tolist(), strict=True):
        covered[max(0, start - part.from_offset) : max(0, stop + 1 - part.from_offset)] = True
    return np.flatnonzero(~covered) + part.from_offset
