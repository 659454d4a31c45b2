"""Where the first run begins: --start, or where the job stopped that did this work before."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.kafka_admin import KafkaAdmin, TopicState
from pipeline.options.config import OFFSETS, Start
from pipeline.run.spark_checkpoint import OldJob, read_checkpoint
from transforms.destinations.contract.run_ledger import OLD_JOB
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError

_LOG = logging.getLogger(__name__)

_ELSEWHERE: Final = (
    "Check --bootstrap_servers and --topic; where the topic was created again, what the old job has"
    " not read of it is lost: begin with --start=earliest."
)


@dataclass(frozen=True)
class FirstPositions:
    """positions: of each partition of the run's topics. watermark_us: of all of them, microseconds
    since 1970; None: nothing is late. recorded: what genesis says of it in its settings.
    """

    positions: Mapping[TopicPartition, int]
    watermark_us: int | None
    recorded: Mapping[str, object]


def first_positions(
    admin: KafkaAdmin, states: Sequence[TopicState], start: Start
) -> FirstPositions:
    """states: fresh answers of the broker, one for each topic.

    A partition that the old job does not name has come since, and begins at its beginning. Raises
    GuaranteeError where the old job's topics are not those of the run, or have not what it read.
    """
    if start.kind != OFFSETS:
        positions = {
            (state.topic, partition): offset
            for state in states
            for partition, offset in admin.offsets_for_start(state, start).items()
        }
        for state in states:
            _say_what_is_left_out(state, start, positions)
        return FirstPositions(positions, None, {})
    path = str(start.given)
    old = read_checkpoint(path)
    _same_topics(path, old, states)
    found = {}
    for state in states:
        read = old.offsets[state.topic]
        _within_the_log(path, read, state)
        for partition in state.partitions:
            found[state.topic, partition] = read.get(partition, 0)
    recorded = {"path": path, "batch": old.batch, "watermark_us": old.watermark_us}
    return FirstPositions(found, old.watermark_us, {OLD_JOB: recorded})


def _say_what_is_left_out(
    state: TopicState, start: Start, positions: Mapping[TopicPartition, int]
) -> None:
    """A moment that is mistyped, or a broker that keeps no times, would leave out payments in
    silence; and --start counts once.
    """
    before = there = 0
    for partition, (low, high) in state.partitions.items():
        before += positions[state.topic, partition] - low
        there += high - low
    if before:
        _LOG.warning(
            "--start=%s: this destination never reads %s of the %s offsets that topic %s has: they"
            " lie before it",
            start.given or start.kind,
            f"{before:,}",
            f"{there:,}",
            state.topic,
        )


def _same_topics(path: str, old: OldJob, states: Sequence[TopicState]) -> None:
    named = {state.topic for state in states}
    if lacking := sorted(named - old.offsets.keys()):
        raise GuaranteeError(
            f"--start_offsets={path}: batch {old.batch} has the topic(s)"
            f" {', '.join(sorted(old.offsets)) or 'none'}, and not {', '.join(lacking)}, so it does"
            " not say where to begin. Name the topics of the old job with --topic; a further one"
            " can be named in the run after the first, and begins at its beginning."
        )
    if others := sorted(old.offsets.keys() - named):
        raise GuaranteeError(
            f"--start_offsets={path}: the old job has read {', '.join(others)} too. Named in a"
            " later run, it would begin at its beginning, not where the old job stopped. Name it"
            " with --topic now."
        )


def _within_the_log(path: str, read: Mapping[int, int], state: TopicState) -> None:
    """What was deleted before it was read is judged as in every run, by --on_data_loss."""
    for partition, offset in sorted(read.items()):
        if partition not in state.partitions:
            raise GuaranteeError(
                f"--start_offsets={path}: the old job has read partition {partition} of topic"
                f" {state.topic}, which has {len(state.partitions)}. {_ELSEWHERE}"
            )
        end = state.partitions[partition][1]
        if offset > end:
            raise GuaranteeError(
                f"--start_offsets={path}: the old job has read topic {state.topic} partition"
                f" {partition} up to offset {offset}, but the log ends at {end}. {_ELSEWHERE}"
            )
