"""Step 2 of a run after a streaming job: what the job has written above the positions.

A shard of a streaming job may have come further than another one, so a record behind a hole can be
in the tables before the hole is. STOP takes the first hole of each partition for its position. Runs
begin there, fill the holes, and pass over what is present, which they count in their proof as a
repair does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.run.plan import NOTHING_PRESENT, Plan, PlannedPartition, Present
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import last_stop
from transforms.destinations.contract.run_ledger import RunRecord, last_committed


def written_above(destination: Destination, runs: Sequence[RunRecord]) -> Present:
    """Rows and gaps above the positions of the chain `runs`, as far as a STOP says there are any.

    Asks the tables only until runs have come past all of them. Streams of the job take no rows any
    more, so the answer does not change.
    """
    stop = last_stop(runs)
    if stop is None:
        return NOTHING_PRESENT
    ends = stop[1].ends_above()
    ranges = [
        (part.topic, part.partition, part.to_offset, end)
        for part in last_committed(runs).partitions
        if (end := ends.get((part.topic, part.partition), 0)) > part.to_offset
    ]
    if not ranges:
        return NOTHING_PRESENT
    return Present(destination.rows.present_offsets(ranges), destination.rows.present_gaps(ranges))


def first_absent(position: int, known: NDArray[np.int64]) -> int:
    """The first offset from `position` on that is not among the sorted `known`."""
    behind = known[np.searchsorted(known, position) :]
    differs = np.flatnonzero(behind != np.arange(position, position + len(behind)))
    return position + int(differs[0] if len(differs) else len(behind))


def behind_gap(end: int, gaps: Sequence[tuple[int, int]]) -> int:
    """`end`, or the end of the gap that it would cut: a row of `offset_gaps` lies in one run."""
    return next((last + 1 for first, last in gaps if first < end <= last), end)


def passed_over(destination: Destination, plan: Plan, written: Present) -> Plan:
    """The plan with what is present of its ranges, and the event times of that."""
    if written is NOTHING_PRESENT:
        return plan
    parts = {(part.topic, part.partition): part for part in plan.partitions}
    present = Present(
        {
            position: {table: _within(part, offsets) for table, offsets in tables.items()}
            for position, tables in written.offsets.items()
            if (part := parts.get(position))
        },
        {
            position: [gap for gap in gaps if part.from_offset <= gap[0] < part.to_offset]
            for position, gaps in written.gaps.items()
            if (part := parts.get(position))
        },
    )
    ends = {
        position: part.to_offset
        for position, part in parts.items()
        if len(present.present(position))
    }
    highest = destination.rows.highest_event_times(ends) if ends else {}
    return replace(plan, written=present, highest_us=highest)


def _within(part: PlannedPartition, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    return offsets[(offsets >= part.from_offset) & (offsets < part.to_offset)]
