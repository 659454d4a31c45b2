"""A streaming job is stopped: the tables are handed back to bounded runs.

1. The newest record of the chain, and after it the generation of the shard ledger, are read. A stop
   with a savepoint does so before it takes the savepoint.
2. The stop takes a generation of its own. From here on every worker of the job is refused when it
   claims a shard, so none comes back behind the stop.
3. All streams of all shards are closed, also after a savepoint: a worker that is believed dead may
   have written behind it. What the job owed is written; positions and watermarks come from the
   tables, and windows whose totals do not add up are marked as unobserved.
4. One statement claims the chain with a STOP.

A crash between two steps leaves the job as the owner, without a worker that may write: the stop is
called again, or a job follows by `--from_tables`. `stop --lost` is the same without a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import pyarrow as pa

from pipeline.streaming.hand_over import write_owed_totals, write_pending_gaps
from pipeline.streaming.records import (
    fresh_id,
    generation_of,
    ownership_record,
    settings_without_ownership,
)
from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.contract.ownership import (
    STOP,
    Ownership,
    last_stop,
    owner_of,
    turns_of,
)
from transforms.destinations.contract.run_ledger import (
    PartitionProgress,
    RunRecord,
    amount_and_currency,
    horizon_of,
    partitions_of,
)
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER, Job
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.stream.adopt import adopt
from transforms.stream.gaps import Gap
from transforms.stream.polling import Polling

_TRIES: Final = 5
"""Workers may write down partitions that they find, until the stop has its generation."""

_NO_END: Final = 1 << 62
"""Above every offset."""


@dataclass(frozen=True)
class Seen:
    """Whom a stop is about to stop: the job that owns the tables, and the ledger's generation."""

    job_id: str
    generation: int


@dataclass(frozen=True)
class Stopped:
    """What has become of the job.

    record: the STOP. unobserved: starts of the windows that this stop has marked, as text.
    already: the job had been stopped before, and nothing was changed.
    """

    record: RunRecord
    job_id: str
    unobserved: Sequence[str] = ()
    already: bool = False


def look_before_stop(destination: Destination) -> Seen | Stopped:
    """Step 1 of a stop that takes a savepoint next.

    Stopped: the job had been stopped before; one that begins behind this look is not meant. Raises
    GuaranteeError where no job has ever owned the tables.
    """
    runs = chain_of(destination)
    owner = owner_of(runs)
    if owner is None:
        return _stopped_before(runs, None)
    return Seen(owner.job_id, generation_of(destination))


def stop_streaming(
    destination: Destination,
    now_us: Callable[[], int],
    *,
    seen: Seen | None = None,
    owed: pa.RecordBatch | None = None,
    pending_gaps: Sequence[Gap] = (),
    polling: Polling = Polling(),
) -> Stopped:
    """Stops the job that owns the tables. May be called again, whatever came of an earlier call.

    seen: what was looked at before a savepoint. owed: totals that the job had not written yet, rows
    of TOTALS_SCHEMA; None: unknown, so open windows are marked as unobserved. pending_gaps: not in
    `offset_gaps` yet. now_us: the clock, in microseconds. Raises GuaranteeError where no job has
    ever owned the tables, another one has begun meanwhile, or acknowledged rows are not there.
    """
    for _ in range(_TRIES):
        runs = chain_of(destination)
        owner = owner_of(runs)
        if owner is None:
            return _stopped_before(runs, seen)
        generation = generation_of(destination)
        if seen is not None and (owner.job_id, generation) != (seen.job_id, seen.generation):
            raise GuaranteeError(
                f"job {seen.job_id} was to be stopped, but by now job {owner.job_id} owns the"
                f" tables, generation {generation} of {SHARD_LEDGER}. It goes on; stop it if that"
                " is still wanted."
            )
        job = destination.shards.begin_job(fresh_id("stop"), generation, _shards(runs[-1]))
        destination.streams.forget_closed()
        before = _unobserved(destination)
        ends = _close(destination, job, runs[-1], owed, pending_gaps, polling)
        marked = sorted(_unobserved(destination) - before)
        record = _stop_record(destination, runs, owner, job, ends, now_us())
        if destination.runs.claim(record):
            return Stopped(record, owner.job_id, marked)
        # Another job may have begun, which this stop does not mean.
        seen = Seen(owner.job_id, job.generation)
    raise TryAgainLater(
        f"the chain was followed {_TRIES} times while the job was stopped. Its workers are refused"
        " by now; stop it again."
    )


def _stopped_before(runs: Sequence[RunRecord], seen: Seen | None) -> Stopped:
    stop = last_stop(runs)
    if stop is None or stop[1].job_id != (seen.job_id if seen else stop[1].job_id):
        raise GuaranteeError(
            "no streaming job owns the tables of this destination, so there is none to stop."
            " `payment-pipeline run` may write to them."
        )
    return Stopped(stop[0], stop[1].job_id, already=True)


@dataclass(frozen=True)
class _Ends:
    """positions: the first offset that is in no table and no gap; highest_us: of the event times
    below it.
    """

    positions: Mapping[TopicPartition, int]
    highest_us: Mapping[TopicPartition, int]


def _close(
    destination: Destination,
    job: Job,
    begin: RunRecord,
    owed: pa.RecordBatch | None,
    pending_gaps: Sequence[Gap],
    polling: Polling,
) -> _Ends:
    """Step 3, under the generation of the stop."""
    if owed is not None and owed.num_rows:
        write_owed_totals(destination, job, owed, amount_and_currency(begin.settings), polling)
    begins = {where: part.to_offset for where, part in partitions_of(begin).items()}
    shards, horizon = _shards(begin), horizon_of(begin)
    positions = adopt(destination, job, shards, begins, horizon, polling).positions
    if pending_gaps:
        write_pending_gaps(destination, job, pending_gaps, polling)
        positions = destination.rows.first_missing(positions)
    return _Ends(positions, destination.rows.highest_event_times(positions))


def _stop_record(
    destination: Destination,
    runs: Sequence[RunRecord],
    owner: Ownership,
    job: Job,
    ends: _Ends,
    now_us: int,
) -> RunRecord:
    begin = runs[-1]
    rows, horizon = destination.rows, horizon_of(begin)
    parts = partitions_of(begin)
    ranges = [
        (*where, part.to_offset, ends.positions[where])
        for where, part in parts.items()
        if ends.positions[where] > part.to_offset
    ]
    gaps = rows.present_gaps(ranges) if ranges else {}
    partitions = [
        _accounted(
            part,
            ends.positions[where],
            sum(last - first + 1 for first, last in gaps.get(where, ())),
            None if where not in ends.highest_us else ends.highest_us[where] - horizon,
            now_us,
        )
        for where, part in parts.items()
    ]
    ownership = Ownership(
        kind=STOP,
        job_id=owner.job_id,
        generation=job.generation,
        since_us=now_us,
        begun_us=owner.begun_us,
        above=_above(destination, ends.positions),
        not_in_totals=rows.count_rows() - rows.count_in_totals(),
        turns=turns_of(runs, destination.runs),
    )
    settings = settings_without_ownership(begin)
    return ownership_record(STOP, runs, partitions, begin.cluster_id, settings, ownership)


def _accounted(
    part: PartitionProgress, position: int, gap_offsets: int, reached: int | None, now_us: int
) -> PartitionProgress:
    """The partition up to `position`. reached: the watermark that its rows make, microseconds.

    Every offset below the position is a row or a gap, and no reader has reported their hash, so it
    is 0. Where the position has moved, a payment may have come a moment ago: it is not idle.
    """
    marks = [mark for mark in (part.watermark, reached) if mark is not None]
    moved = position > part.to_offset
    return msgspec.structs.replace(
        part,
        from_offset=part.to_offset,
        to_offset=position,
        records=position - part.to_offset - gap_offsets,
        gap_offsets=gap_offsets,
        coordinate_hash=0,
        start_watermark=part.watermark,
        watermark=max(marks, default=None) if moved else part.watermark,
        position_since=now_us if moved else part.position_since,
    )


def _above(
    destination: Destination, positions: Mapping[TopicPartition, int]
) -> tuple[tuple[str, int, int], ...]:
    """(topic, partition, end) where rows or gaps lie above the position: all of them below end."""
    ranges = [(*where, position, _NO_END) for where, position in positions.items()]
    rows = destination.rows.present_offsets(ranges)
    gaps = destination.rows.present_gaps(ranges)
    ends = {
        where: 1
        + max(
            [
                *(int(offsets[-1]) for offsets in rows[where].values() if len(offsets)),
                *(last for _, last in gaps[where]),
            ],
            default=-1,
        )
        for where in positions
    }
    return tuple((*where, end) for where, end in sorted(ends.items()) if end)


def _shards(begin: RunRecord) -> int:
    return int(str(begin.settings["shards"]))


def _unobserved(destination: Destination) -> set[str]:
    found = destination.query(destination.checks.unobserved_windows).column("window_start")
    return set(found.to_pylist())
