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

from pipeline.run.generations import topics_of
from pipeline.run.make_plan import load_watermarks
from pipeline.run.prune_record import rows_instead
from pipeline.run.settings import settings_in_force
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import STOP, ownership_of, written_at
from transforms.destinations.contract.pruned import (
    Pruned,
    PrunedPartition,
    PrunedTable,
    judged,
    last_pruned,
)
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    RunRecord,
    amount_and_currency,
    last_committed,
)
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
    PAYMENTS,
    REJECTED,
    ROW_TABLES,
)
from transforms.model.topic_generations import current_generations

_PARTITION: Final = ("kafka_topic", "kafka_partition")
_NONE: Final = np.empty(0, dtype=np.int64)

OffsetRuns: TypeAlias = dict[str, tuple[NDArray[np.int64], ...]]
"""Table -> first and last offsets of runs of offsets."""


@dataclass(frozen=True)
class PrunePlan:
    """runs: how many of them go. pruned: what a record will say of it. rows: what is written in
    their place, by table. stay: payments before the date that are left, and why: what holds the
    others back, for a person.
    """

    runs: int
    pruned: Pruned
    rows: Mapping[str, pa.RecordBatch]
    stay: int
    why: str


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
    bound, held_back = _bound(runs, before_us)
    if bound is None:
        return Nothing(held_back)
    there = judged(runs)
    going, held_back = _going(there, destination.pruning.first_since(bound), before_us, held_back)
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
    pruning = destination.pruning
    kept, gaps = pruning.kept_in(ranges), pruning.gaps_in(ranges)
    parts = _partitions(ranges, pruning.rows_in(ranges), kept, gaps)
    latest, before = pruning.latest(ranges), last_pruned(reversed(runs))
    ever = (latest, None if before is None else before.latest_ever_us)
    pruned = Pruned(
        border=border.run_id,
        latest_us=latest,
        latest_ever_us=max((time for time in ever if time is not None), default=None),
        ingested_until_us=pruning.rejected_until(ranges),
        windows_before_us=(
            EARLIEST_US if latest is None else (latest // BUCKET_US + 1) * BUCKET_US
        ),
        not_in_totals=0,
        partitions=parts,
    )
    if not sum(pruned.removed().values()):
        return Nothing(held_back)
    in_force = settings_in_force(runs) or last_committed(runs).settings
    taken_off = pruning.totals_to_take_off(pruned.cut(), *amount_and_currency(in_force))
    not_in_totals = (
        destination.rows.count_rows()
        - destination.rows.count_in_totals()
        - sum(pruned.removed().values())
        + (pc.sum(taken_off.column("records")).as_py() or 0)
        + pruning.records_in_totals(pruned.cut())
    )
    return PrunePlan(
        sum(_has_read(run) for run in going),
        msgspec.structs.replace(pruned, not_in_totals=not_in_totals),
        rows_instead(pruned, kept, gaps, taken_off),
        pruning.payments_before(before_us) - pruned.removed()[PAYMENTS],
        held_back,
    )


def _has_read(run: RunRecord) -> bool:
    """Genesis, prunes and the beginnings of jobs have not."""
    return any(part.to_offset > part.from_offset for part in run.partitions)


def _bound(runs: Sequence[RunRecord], before_us: int) -> tuple[int | None, str]:
    """No payment at or after it goes, in microseconds; and what holds it back, for a person.

    Every partition counts, also of topics that the last run did not name: when one of them is named
    again, its ids are loaded from its own watermark on, as today's horizon would have made it.
    Older generations of a topic are not read again.
    """
    last, in_force = last_committed(runs), settings_in_force(runs)
    binding = [last.settings, *([] if in_force is None else [in_force])]
    retention = max(int(str(each["extra_retention_us"])) for each in binding)
    horizon = max(int(str(each["dedup_horizon_us"])) for each in binding)
    current = set(current_generations(topics_of(last.partitions)).values())
    marks = {
        where: mark for where, mark in load_watermarks(runs, horizon).items() if where[0] in current
    }
    if not marks:
        return None, "no partition has a watermark yet"
    where = min(marks, key=lambda each: marks[each])
    live = max(EARLIEST_US, first_live_time(marks[where], retention))
    if live >= before_us:
        return before_us, f"payments lie at or after {moment_in_words(before_us)}"
    return live, (
        f"ids from {moment_in_words(live)} on are still known, by the watermark of"
        f" {where[0]}:{where[1]} and the horizon"
    )


def _going(
    there: Sequence[RunRecord],
    first_since: Mapping[TopicPartition, int],
    before_us: int,
    held_back: str,
) -> tuple[Sequence[RunRecord], str]:
    """The COMMITTED runs that go, and why no more of them do."""
    going: list[RunRecord] = []
    ends: Mapping[TopicPartition, int] = {}
    borders = 0
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
            return going[:borders], why
        written = written_at(run)[1]
        if _may_have_rejected(run) and written >= before_us:
            why = f"run {run.run_id} has rejected records, and was at {moment_in_words(written)}"
            return going[:borders], why
        going.append(run)
        found = ownership_of(run)
        ends = ends if found is None else found.ends_above()
        # Behind a BEGIN the job has read what its STOP tells. A run that passes over what a job had
        # written above its STOP is judged by that STOP.
        if (found is None or found.kind == STOP) and all(
            ends.get((part.topic, part.partition), 0) <= part.to_offset for part in run.partitions
        ):
            borders = len(going)
    return going[:borders], "no run has more, or copies that stay keep what there is"


def _may_have_rejected(run: RunRecord) -> bool:
    """A job does not count its rows table by table."""
    return ownership_of(run) is not None or run.rows_in(REJECTED) > 0


def _partitions(
    ranges: Sequence[OffsetRange], rows: pa.Table, kept: pa.Table, gaps: pa.Table
) -> tuple[PrunedPartition, ...]:
    """Those with anything below the border. rows, kept, gaps: answers of Pruning for the ranges."""
    there, stay = _by_partition(rows), _by_partition(kept)
    between = dict(sorted_groups(gaps, _PARTITION, "first_offset"))
    parts = (
        _partition(where, there.get(where[:2], {}), stay.get(where[:2], {}), between.get(where[:2]))
        for where in ranges
    )
    return tuple(part for part in parts if part is not None)


def _by_partition(
    found: pa.Table,
) -> dict[TopicPartition, OffsetRuns]:
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
