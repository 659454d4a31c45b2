"""What a prune removes: whole runs, from the beginning of the chain up to its border.

A run goes where every payment and every duplicate of it lies before the date and is known by no
later run: behind the dedup horizon and the extra retention of every partition. Rejected records go
with their run, where it was before the date, too. Why no payment can be doubled, and none hidden:
docs/guarantees.md, 'Payments that are pruned'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.run.remove_pruned import amount_and_currency
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import owner_of, ownership_of, written_at
from transforms.destinations.contract.pruned import (
    Pruned,
    PrunedPartition,
    PrunedTable,
    judged,
    rows_not_in_totals,
)
from transforms.destinations.contract.run_ledger import COMMITTED, RunRecord, last_committed
from transforms.model.buckets import BUCKET_US, first_live_time
from transforms.model.coordinates import (
    OffsetRange,
    TopicPartition,
    coordinate_sum,
    expand_runs,
)
from transforms.model.errors import GuaranteeError
from transforms.model.moments import moment_in_words
from transforms.model.partitions import sorted_groups
from transforms.model.tables import (
    EARLIEST_US,
    REJECTED,
    ROW_TABLES,
)

_PARTITION: Final = ("kafka_topic", "kafka_partition")
_NONE: Final = np.empty(0, dtype=np.int64)

OffsetRuns: TypeAlias = dict[str, tuple[NDArray[np.int64], ...]]
"""Table -> first and last offsets of runs of offsets."""


@dataclass(frozen=True)
class PrunePlan:
    """runs: how many of them go. pruned: what a record will say of it."""

    runs: int
    pruned: Pruned


@dataclass(frozen=True)
class Nothing:
    """Why there is nothing to prune, for a person."""

    why: str


def plan_prune(
    destination: Destination, runs: Sequence[RunRecord], before_us: int
) -> PrunePlan | Nothing:
    """What goes. Changes nothing.

    runs: the whole chain, as RunHistory.read gives it, without a PREPARED run at its end.
    before_us: the date, in microseconds since 1970.
    """
    bound, held_back = _bound(last_committed(runs), before_us)
    if bound is None:
        return Nothing(held_back)
    there = judged(runs)
    going, held_back = _going(there, destination.pruning.first_since(bound), before_us, held_back)
    while going and owner_of(going) is not None:
        going = going[:-1]  # What the job has read is told by the stop that follows.
    if not going:
        return Nothing(held_back)
    border = going[-1]
    ranges = tuple(
        (part.topic, part.partition, 0, part.to_offset)
        for part in border.partitions
        if part.to_offset > 0
    )
    if not ranges:
        return Nothing(held_back)
    rows, kept = (
        _by_partition(found)
        for found in (destination.pruning.rows_in(ranges), destination.pruning.kept_in(ranges))
    )
    gaps = dict(sorted_groups(destination.pruning.gaps_in(ranges), _PARTITION, "first_offset"))
    parts = [
        _partition(where, rows.get(where[:2], {}), kept.get(where[:2], {}), gaps.get(where[:2]))
        for where in ranges
    ]
    latest = destination.pruning.latest(ranges)
    times = [time for run in going for time in written_at(run)]
    pruned = Pruned(
        border=border.run_id,
        latest_us=latest,
        ingested_until_us=max(times),
        windows_before_us=(
            EARLIEST_US if latest is None else (latest // BUCKET_US + 1) * BUCKET_US
        ),
        not_in_totals=0,
        partitions=tuple(part for part in parts if part is not None),
    )
    if not sum(pruned.removed().values()):
        return Nothing(held_back)
    columns = amount_and_currency(border.settings)
    taken_off = destination.pruning.totals_to_take_off(pruned.cut(), *columns)
    not_in_totals = (
        rows_not_in_totals(runs)
        - sum(pruned.removed().values())
        + (pc.sum(taken_off.column("records")).as_py() or 0)
        + destination.pruning.records_in_totals(pruned.cut())
    )
    return PrunePlan(len(going), msgspec.structs.replace(pruned, not_in_totals=not_in_totals))


def _bound(last: RunRecord, before_us: int) -> tuple[int | None, str]:
    """No payment at or after it goes, in microseconds; and what holds it back, for a person.

    Every partition counts, also of topics that the last run did not name: when one of them is named
    again, its ids are loaded from its own watermark on.
    """
    retention = int(str(last.settings["extra_retention_us"]))
    marks = {
        (part.topic, part.partition): part.watermark
        for part in last.partitions
        if part.watermark is not None
    }
    if not marks:
        return None, "no partition has a watermark yet"
    where = min(marks, key=lambda each: marks[each])
    live = first_live_time(marks[where], retention)
    if live >= before_us:
        return before_us, f"payments lie at or after {moment_in_words(before_us)}"
    return live, (
        f"ids from {moment_in_words(live)} on are still known: the watermark of"
        f" {where[0]}:{where[1]} is {moment_in_words(marks[where])}"
    )


def _going(
    there: Sequence[RunRecord],
    first_since: Mapping[TopicPartition, int],
    before_us: int,
    held_back: str,
) -> tuple[Sequence[RunRecord], str]:
    """The COMMITTED runs that go, and why no more of them do."""
    going: list[RunRecord] = []
    for run in there:
        if run.status != COMMITTED:
            continue
        stays = next(
            (
                part
                for part in run.partitions
                if part.to_offset > first_since.get((part.topic, part.partition), part.to_offset)
            ),
            None,
        )
        if stays is not None:
            why = f"{held_back}; {stays.topic}:{stays.partition} of run {run.run_id} has some"
            return going, why
        written = written_at(run)[1]
        if _may_have_rejected(run) and written >= before_us:
            why = f"run {run.run_id} has rejected records, and was at {moment_in_words(written)}"
            return going, why
        going.append(run)
    return going, "no run has more, or copies that stay keep what there is"


def _may_have_rejected(run: RunRecord) -> bool:
    """A job does not count its rows table by table."""
    return ownership_of(run) is not None or any(
        table.table == REJECTED and table.rows for table in run.tables
    )


def _by_partition(
    found: pa.Table,
) -> dict[TopicPartition, dict[str, tuple[NDArray[np.int64], ...]]]:
    rows: dict[TopicPartition, OffsetRuns] = {}
    for (table, *where), runs in sorted_groups(found, ("table_name", *_PARTITION), "first_offset"):
        columns = (runs.column(name).to_numpy() for name in ("first_offset", "last_offset"))
        rows.setdefault((where[0], where[1]), {})[table] = tuple(columns)
    return rows


def _partition(
    where: OffsetRange,
    rows: OffsetRuns,
    kept: OffsetRuns,
    gaps: pa.Table | None,
) -> PrunedPartition | None:
    """Of one partition what goes and what is kept; None where there is nothing below the border.

    rows, kept: see _by_partition. gaps: of the partition, None where there is none. Raises
    GuaranteeError where an offset is neither a row nor in a gap: `check` has passed, so that the
    tables were altered since.
    """
    topic, partition, _, below = where
    all_rows = {table: expand_runs(*runs) for table, runs in rows.items()}
    stays = {table: expand_runs(*runs) for table, runs in kept.items()}
    gap_first, gap_last = (
        _NONE if gaps is None else gaps.column(name).to_numpy()
        for name in ("first_offset", "last_offset")
    )
    first = min(
        [int(offsets[0]) for offsets in all_rows.values()] + gap_first[:1].tolist(), default=below
    )
    offsets = sum(map(len, all_rows.values())) + int((gap_last - gap_first + 1).sum())
    if offsets != below - first or (gap_last >= below).any():
        raise GuaranteeError(
            f"{topic}:{partition}: {offsets} offsets are rows or lie in gaps, and {below - first}"
            f" lie between {first} and {below}. Run `check`. Nothing was removed."
        )
    tables = []
    for table in ROW_TABLES:
        there, left = all_rows.get(table, _NONE), stays.get(table, _NONE)
        gone = np.setdiff1d(there, left, assume_unique=True)
        tables.append(
            PrunedTable(
                table=table,
                removed=len(gone),
                removed_hash=f"{coordinate_sum(topic, partition, gone):016x}",
                kept=len(left),
                kept_hash=f"{coordinate_sum(topic, partition, left):016x}",
            )
        )
    if first == below:
        return None
    return PrunedPartition(
        topic=topic,
        partition=partition,
        first=first,
        below=below,
        gap_offsets=below - first - sum(map(len, stays.values())),
        tables=tuple(tables),
    )
