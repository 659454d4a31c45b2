"""A partition that a streaming job finds while it runs is written down before it is read.

Otherwise its beginning would be known to the job's checkpoint alone: a stop takes positions from
the tables, which cannot tell a partition that begins at an offset from one that has lost a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from pipeline.run.generations import topics_of
from pipeline.run.plan import first_watermark
from pipeline.streaming.begin import StartPartition
from pipeline.streaming.records import (
    nothing_read,
    ownership_record,
    settings_without_ownership,
)
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import Ownership, owner_of
from transforms.destinations.contract.run_ledger import RunRecord, carried_on, partitions_of
from transforms.destinations.contract.shard_ledger import Job
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.topic_generations import kafka_topic
from transforms.read.topic_identity import way_on

_TRIES: Final = 5
"""Several workers may find partitions at once; each round one of them succeeds."""


@dataclass(frozen=True)
class FoundPartition:
    """A partition that no record of the chain names.

    beginning: the first offset to read: 0 in a topic that the chain knows, else what retention has
    left of it.
    """

    topic: str
    partition: int
    topic_id: str | None
    beginning: int


def record_partitions(
    destination: Destination, job: Job, found: Sequence[FoundPartition]
) -> list[StartPartition]:
    """Where each partition begins, in the order of `found`, as the ledger has it from now on.

    May be called again, by several workers at once: the first beginning that was written down
    stays. Raises GuaranteeError where the job does not own the tables any more, or a topic was
    created again.
    """
    wanted = {(part.topic, part.partition): part for part in found}
    for _ in range(_TRIES):
        runs = destination.runs.tail()
        owner = _require_owner(runs, job)
        known = partitions_of(runs[-1])
        _require_same_topics(runs[-1], found)
        missing = [part for where, part in wanted.items() if where not in known]
        if not missing:
            return [
                StartPartition(
                    part.topic,
                    part.partition,
                    part.topic_id,
                    known[where].to_offset,
                    known[where].watermark,
                )
                for where, part in wanted.items()
            ]
        destination.runs.claim(_with(runs, owner, missing))
    raise TryAgainLater(
        f"job {job.job_id}: {_TRIES} claims of the chain met those of its other workers. The next"
        " attempt finds what they have written."
    )


def _require_owner(runs: Sequence[RunRecord], job: Job) -> Ownership:
    owner = owner_of(runs)
    if owner is None or (owner.job_id, owner.generation) != (job.job_id, job.generation):
        now = "no job owns them now" if owner is None else f"job {owner.job_id} does"
        raise GuaranteeError(
            f"job {job.job_id} (generation {job.generation}) does not own the tables any more,"
            f" {now}: it was stopped or superseded. Cancel it."
        )
    return owner


def _require_same_topics(record: RunRecord, found: Sequence[FoundPartition]) -> None:
    known = {part.topic: part.topic_id for part in record.partitions if part.topic_id is not None}
    for part in found:
        if part.topic_id != known.get(part.topic, part.topic_id):
            raise GuaranteeError(
                f"topic {part.topic} is read with the id {known[part.topic]}, and partition"
                f" {part.partition} was found with the id {part.topic_id}: the topic was deleted"
                " and created again, so its offsets would repeat."
                f" {way_on(part.topic, part.topic_id)}"
            )


def _with(
    runs: Sequence[RunRecord], owner: Ownership, found: Sequence[FoundPartition]
) -> RunRecord:
    """The record of the same owner with more partitions."""
    record = runs[-1]
    settings = settings_without_ownership(record)
    topics = msgspec.convert(settings["topics"], list[str])
    marks = {where: part.watermark for where, part in partitions_of(record).items()}
    known = topics_of(record.partitions)
    more = [
        nothing_read(
            part.topic,
            part.partition,
            part.topic_id,
            part.beginning,
            first_watermark(part.topic, marks, known, topics),
            record.plan_time,
        )
        for part in found
    ]
    return ownership_record(
        "found",
        runs,
        [*map(carried_on, record.partitions), *more],
        record.cluster_id,
        {**settings, "topics": sorted({*topics, *(kafka_topic(part.topic) for part in found)})},
        owner,
    )
