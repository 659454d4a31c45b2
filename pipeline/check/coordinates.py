"""Every offset below the committed position lies in exactly one row or exactly one gap.

The rows are also compared with the number and the hash of the coordinates that the reader of each
run delivered. A coordinate is (topic, partition, offset).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.check.pruned import pruned_range_problem
from pipeline.check.result import FAILED, PASSED, PROOF_ROWS, CheckResult
from pipeline.check.stored_coordinates import StoredCoordinates
from pipeline.check.streamed import written_above
from pipeline.counted import counted
from transforms.destinations.contract.ownership import owner_of, ownership_of
from transforms.destinations.contract.pruned import judged, last_pruned
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    PREPARED,
    PartitionProgress,
    RunRecord,
)
from transforms.destinations.contract.snapshot import Snapshot
from transforms.model.coordinates import TopicPartition, coordinate_sum
from transforms.model.tables import GAPS


@dataclass
class Findings:
    """Failures of one kind: how many, and the first few as rows of a proof."""

    what: str
    count: int = 0
    proof: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, topic: str, partition: int, offsets: NDArray[np.int64], **more: Iterable[Any]
    ) -> None:
        """more: further columns of the proof, with at least one value for each offset."""
        self.count += len(offsets)
        for offset, *values in zip(
            offsets[: PROOF_ROWS - len(self.proof)].tolist(), *more.values(), strict=False
        ):
            coordinate = {
                "kafka_topic": topic,
                "kafka_partition": partition,
                "kafka_offset": offset,
            }
            self.proof.append({**coordinate, **dict(zip(more, values, strict=True))})

    def result(self, name: str, good: str) -> CheckResult:
        """FAILED if there is any. good: the figure of a check that has passed."""
        return CheckResult(
            name,
            FAILED if self.count else PASSED,
            f"{self.what}: {self.count:,}" if self.count else good,
            self.proof,
        )


def check_coordinates(snapshot: Snapshot, runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Five results: repeated, missing, overlapping, unread and undelivered coordinates.

    The ranges of COMMITTED runs are checked, and what a prune has left before them. Those of a
    PREPARED run are in flight, so they may be visible or not. A row or gap outside of all is a
    failure, unless a streaming job has written it above its positions. runs: the chain.
    """
    repeated = Findings("coordinates with more than one row")
    missing = Findings("coordinates without a row and without a gap")
    both = Findings("coordinates in a gap and in a row, or in two gaps")
    surplus = Findings("coordinates that no run has read")
    unlike = Findings("ranges that are not what the reader delivered")
    rows_seen = 0
    tables = StoredCoordinates(snapshot)
    above, pruned = written_above(runs), last_pruned(reversed(runs))
    before_border = {
        (part.topic, part.partition): part for part in (pruned.partitions if pruned else ())
    }
    runs = judged(runs)
    streamed = [run for run in runs if ownership_of(run) is not None]
    for topic_partition in sorted(
        tables.partitions()
        | before_border.keys()
        | {(part.topic, part.partition) for run in runs for part in run.partitions}
    ):
        twice, holders = tables.repeated(topic_partition)
        offsets = tables.offsets(topic_partition)
        first, last = tables.gaps(topic_partition)
        committed = _ranges(runs, topic_partition, COMMITTED)
        in_flight = _ranges(runs, topic_partition, PREPARED)
        unreported = _ranges(streamed, topic_partition, COMMITTED)
        spans = [
            (part.from_offset, part.to_offset)
            for part in [*committed, *in_flight, *filter(None, [above.get(topic_partition)])]
        ]
        border = before_border.get(topic_partition)
        if border is not None:
            spans.append((border.first, border.below))
            left, in_gaps = _below(border.below, offsets, first, last)
            if problem := pruned_range_problem(border, left, in_gaps):
                unlike.add(*topic_partition, np.array([border.first]), problem=[problem])
        known = _bounds(spans)
        rows_seen += len(offsets)
        repeated.add(*topic_partition, twice, tables=holders)
        both.add(*topic_partition, _in_gap_twice(offsets, first, last))
        surplus.add(*topic_partition, offsets[~_inside(offsets, *known)])
        surplus.add(
            *topic_partition,
            first[~(_inside(first, *known) & _inside(last, *known))],
            of=repeat(GAPS),
        )
        for part in committed:
            begin, end = np.searchsorted(offsets, [part.from_offset, part.to_offset])
            missing.add(*topic_partition, _absent(offsets[begin:end], first, last, part))
            if part not in unreported and (part.records, part.coordinate_hash) != (
                end - begin,
                coordinate_sum(*topic_partition, offsets[begin:end]),
            ):
                rows = [int(end - begin)]
                unlike.add(
                    *topic_partition,
                    np.array([part.from_offset]),
                    to_offset=[part.to_offset],
                    delivered=[part.records],
                    rows=rows,
                )
    yield repeated.result(
        "no coordinate twice over the three tables",
        f"{counted(rows_seen, 'row')}, each at its own coordinate",
    )
    below = "every offset below the committed positions is a row or a gap"
    if owner_of(runs) is not None:
        below += "; what a streaming job has written above them is judged when it is stopped"
    yield missing.result("no coordinate missing", below)
    yield both.result("no gap where a row is", "rows and gaps are apart")
    yield surplus.result("no row that no run has read", "every row lies in the range of a run")
    yield unlike.result(
        "the tables hold what the reader delivered",
        "records and hashes of coordinates agree for every run and partition",
    )


def _ranges(
    runs: Sequence[RunRecord], topic_partition: TopicPartition, status: str
) -> list[PartitionProgress]:
    """The ranges of one partition that are not empty, in the order of the chain.

    For COMMITTED runs that is the order of offsets.
    """
    return [
        part
        for run in runs
        if run.status == status
        for part in run.partitions
        if (part.topic, part.partition) == topic_partition and part.to_offset > part.from_offset
    ]


def _bounds(
    spans: Sequence[tuple[int, int]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first, last) of each span, sorted by first. spans: (first, end), the end exclusive."""
    pairs = sorted((first, end - 1) for first, end in spans)
    firsts, lasts = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return firsts, lasts


def _below(
    end: int, offsets: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """The rows below an offset, and how many offsets lie in gaps that begin below it."""
    gaps = np.searchsorted(first, end)
    return offsets[: np.searchsorted(offsets, end)], int((last[:gaps] - first[:gaps] + 1).sum())


def _inside(
    offsets: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which offsets lie in one of the spans first .. last.

    Both ends are included. Spans may overlap, and are sorted by first.
    """
    if not len(first):
        return np.zeros(len(offsets), dtype=bool)
    before = np.searchsorted(first, offsets, side="right") - 1
    inside: NDArray[np.bool_] = (before >= 0) & (offsets <= np.maximum.accumulate(last)[before])
    return inside


def _in_gap_twice(
    offsets: NDArray[np.int64], first: NDArray[np.int64], last: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Offsets of rows that lie in a gap, and first offsets of gaps that overlap an earlier gap.

    Gaps are sorted by first.
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
    """Offsets of the range that are neither in `present` nor in a gap first .. last."""
    covered = np.zeros(part.to_offset - part.from_offset, dtype=bool)
    covered[present - part.from_offset] = True
    begin, end = np.searchsorted(last, part.from_offset), np.searchsorted(first, part.to_offset)
    for start, stop in zip(first[begin:end].tolist(), last[begin:end].tolist(), strict=True):
        covered[max(0, start - part.from_offset) : max(0, stop + 1 - part.from_offset)] = True
    return np.flatnonzero(~covered) + part.from_offset
