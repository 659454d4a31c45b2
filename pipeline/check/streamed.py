"""What a streaming job has written, or is writing: which judgements differ from those of a run.

A STOP accounts for the offsets from its BEGIN to the first hole of the tables, as a run does for
its range, but no reader has reported them. Above the positions rows are right while a job owns the
tables, and afterwards up to where the STOP has found some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.check.result import NOTED, CheckResult
from transforms.destinations.contract.ownership import last_stop, owner_of, ownership_of
from transforms.destinations.contract.pruned import PRUNED
from transforms.destinations.contract.run_ledger import ABORTED, PartitionProgress, RunRecord
from transforms.model.buckets import BUCKET_US, expiry_of_bucket
from transforms.model.coordinates import TopicPartition
from transforms.model.moments import moment_in_words

_NO_END: Final = 1 << 62
"""Above every offset."""


def owner_of_the_tables(runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Who owns them. runs: the chain; nothing where no streaming job ever did."""
    owner, stop = owner_of(runs), last_stop(runs)
    if owner is not None:
        yield CheckResult(
            "owner of the tables",
            NOTED,
            f"the streaming job {owner.job_id}, generation {owner.generation}, since"
            f" {moment_in_words(owner.since_us)}: rows above its first position are judged when it"
            " is stopped",
        )
    elif stop is not None:
        yield CheckResult(
            "owner of the tables",
            NOTED,
            f"bounded runs, since the streaming job {stop[1].job_id} was stopped at"
            f" {moment_in_words(stop[1].since_us)}",
        )


def written_above(runs: Sequence[RunRecord]) -> dict[TopicPartition, PartitionProgress]:
    """Partition -> a range above the position of the newest BEGIN or STOP that may hold rows."""
    if owner_of(runs) is not None:
        return {(part.topic, part.partition): _range(part, _NO_END) for part in runs[-1].partitions}
    stop = last_stop(runs)
    if stop is None:
        return {}
    ends = stop[1].ends_above()
    return {
        where: _range(part, ends[where])
        for part in stop[0].partitions
        if (where := (part.topic, part.partition)) in ends
    }


def of_runs(found: pa.Table, runs: Sequence[RunRecord]) -> pa.Table:
    """The rows of an answer whose `run_id` is of one of the runs, and no record of ownership, which
    counts no rows, or of pruning, whose rows lie in no range of its own.
    """
    counting = [
        run.run_id for run in runs if ownership_of(run) is None and PRUNED not in run.settings
    ]
    mask = pc.is_in(found.column("run_id"), value_set=pa.array(counting, pa.string()))
    return found.filter(mask)


def owed_totals(differences: pa.Table) -> pa.Array:
    """Per row whether totals hold fewer records than the tables: their window is still open."""
    in_totals = pc.fill_null(differences.column("records_in_totals"), 0)
    return pc.less(in_totals, pc.fill_null(differences.column("records_in_tables"), 0))


def streamed_ranges(runs: Sequence[RunRecord]) -> list[bool]:
    """Per run, and for what no run has read, whether streaming has written rows of its range.

    The order in which a job accepted payments is not that of offsets or runs.
    """
    ends: dict[TopicPartition, int] = {}
    found = []
    for run in runs:
        ownership = ownership_of(run)
        if ownership is not None:
            ends = ownership.ends_above()
        found.append(
            ownership is not None
            or any(
                part.from_offset < min(part.to_offset, ends.get((part.topic, part.partition), 0))
                for part in run.partitions
                if run.status != ABORTED
            )
        )
    return [*found, owner_of(runs) is not None or bool(ends)]


def accepted_too_early(
    times: Sequence[int], latest_before: int | None, extra_retention_us: int
) -> list[tuple[int, int | None, bool]]:
    """(event time, the time of the copy before it, whether that had expired) of repeated payments.

    times: event times (microseconds) of the payments of one id that a job has accepted.
    latest_before: of its copies that were read before the job. A payment that is not late lies
    behind the watermark, and an id is forgotten when the watermark reaches the end of its minute:
    so payments of one id are accepted in the order of their times, each behind the expiry of the
    one before.
    """
    first = [] if latest_before is None else [latest_before]
    return [
        (time, before, expiry_of_bucket(before // BUCKET_US, extra_retention_us) <= time)
        for before, time in pairwise([*first, *sorted(times)])
    ]


def _range(part: PartitionProgress, end: int) -> PartitionProgress:
    return msgspec.structs.replace(part, from_offset=part.to_offset, to_offset=end)
