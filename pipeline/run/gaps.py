"""Offsets of a run that hold no record, as rows of `offset_gaps`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.run.plan import Plan, PlannedPartition
from transforms.destinations.contract.run_ledger import PartitionProgress
from transforms.model.coordinates import TopicPartition
from transforms.model.run_report import ReaderReport
from transforms.model.tables import DELETED, GAPS_SCHEMA, NO_RECORD


def gap_rows(
    plan: Plan,
    readers: Mapping[TopicPartition, ReaderReport],
    progress: Sequence[PartitionProgress],
) -> pa.RecordBatch:
    """Rows of `offset_gaps` for the offsets that hold no record.

    Where a repair has found fewer records than the expired run, it is unknown which of the offsets
    without a record had one: all count as lost.
    """
    rows = []
    for part, done in zip(plan.partitions, progress, strict=True):
        position = (part.topic, part.partition)
        known = plan.in_tables.known(position)
        lost = plan.repair is not None and plan.repair.before(position).records != done.records
        rows += [
            {
                "kafka_topic": part.topic,
                "kafka_partition": part.partition,
                "first_offset": first,
                "last_offset": last,
                "cause": cause,
            }
            for first, last, cause in gaps_of(
                part, readers.get(position), known, DELETED if lost else NO_RECORD
            )
        ]
    return pa.RecordBatch.from_pylist(rows, schema=GAPS_SCHEMA)


def gaps_of(
    part: PlannedPartition,
    report: ReaderReport | None,
    known: NDArray[np.int64],
    cause: str = NO_RECORD,
) -> list[tuple[int, int, str]]:
    """(first, last, cause) of the offsets that hold no record, without those that are accounted for
    already.
    """
    lost_behind = min(part.read_from, part.to_offset)
    gaps = [(part.from_offset, lost_behind - 1, DELETED)] if lost_behind > part.from_offset else []
    gaps += [(first, last, cause) for first, last in (report.gaps if report else [])]
    return [piece for gap in gaps for piece in _without(gap, known)]


def _without(gap: tuple[int, int, str], known: NDArray[np.int64]) -> Iterator[tuple[int, int, str]]:
    first, last, cause = gap
    inside = known[np.searchsorted(known, first) : np.searchsorted(known, last, side="right")]
    for offset in inside.tolist():
        if offset > first:
            yield first, offset - 1, cause
        first = offset + 1
    if first <= last:
        yield first, last, cause
