"""A streaming job takes the tables: steps 2 and 3 of begin.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.options.config import RunConfig
from pipeline.run.plan import Plan
from pipeline.run.settings import RunSettings
from pipeline.streaming.records import (
    begun_at,
    fresh_id,
    generation_of,
    nothing_read,
    ownership_record,
)
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import BEGIN, Ownership, turns_with
from transforms.destinations.contract.run_ledger import RunRecord, carried_on, partitions_of
from transforms.destinations.contract.shard_ledger import Job
from transforms.destinations.contract.stop_mark import StopMark
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import TryAgainLater


@dataclass(frozen=True)
class Ready:
    """What step 1 has found. config: with the number of shards that the job has; runs: the chain;
    plan: partitions and watermarks.
    """

    config: RunConfig
    runs: Sequence[RunRecord]
    plan: Plan
    settings: RunSettings


@dataclass(frozen=True)
class Taken:
    """The job that owns the tables now. positions: of its record; lifted: see Begun of begin.py."""

    job: Job
    positions: Mapping[TopicPartition, int]
    lifted: tuple[StopMark, ...]


def take_tables(destination: Destination, ready: Ready, now_us: int, restores: str | None) -> Taken:
    """Steps 2 and 3. Raises TryAgainLater where a run, a stop or another job was faster."""
    runs, plan = ready.runs, ready.plan
    follows = generation_of(destination)
    job_id = fresh_id("job")
    known = partitions_of(runs[-1])
    read = [
        carried_on(before)
        if (before := known.pop((part.topic, part.partition), None)) is not None
        and before.watermark == part.start_watermark_us
        else nothing_read(
            part.topic,
            part.partition,
            part.topic_id,
            part.from_offset if before is None else before.to_offset,
            part.start_watermark_us,
            part.position_since_us if before is None else before.position_since,
        )
        for part in plan.partitions
    ]
    record = ownership_record(
        BEGIN,
        runs,
        [*read, *(carried_on(part) for part in known.values())],
        plan.cluster_id,
        {**ready.settings.recorded, **plan.carried_settings},
        Ownership(
            kind=BEGIN,
            job_id=job_id,
            generation=follows + 1,
            since_us=now_us,
            begun_us=begun_at(runs, now_us),
            restores=restores,
            turns=turns_with(job_id, runs, destination.runs),
        ),
    )
    if not destination.runs.claim(record):
        raise TryAgainLater(
            f"a run, a stop or another streaming job has followed {runs[-1].run_id} meanwhile, so"
            " this job does not begin. Nothing of it was written; look who owns the tables, and"
            " start again."
        )
    positions = {where: part.to_offset for where, part in partitions_of(record).items()}
    lifted = tuple(destination.shards.read_marks(follows))
    job = destination.shards.begin_job(job_id, follows, ready.config.shards)
    # Those who held one of an epoch that was closed before are refused by now.
    destination.streams.forget_closed()
    return Taken(job, positions, lifted)
