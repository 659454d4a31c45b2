"""What refuses a run before it reads anything."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from pipeline.counted import counted
from pipeline.kafka_admin import TopicState
from pipeline.options.quantities import format_duration
from pipeline.run.adopt import is_on
from pipeline.run.generations import ACCEPT, current_of, flag_of
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    PartitionProgress,
    RunRecord,
    last_claimed,
    last_committed,
)
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError
from transforms.model.moments import moment_in_words, span_in_words
from transforms.model.topic_generations import generation_of, kafka_topic

_MINUTE_US: Final = 60_000_000
_CLOCKS_AGREE_US: Final = 1_000_000
"""Two clocks that are both set by NTP may differ by some milliseconds, and step back by them."""


def check_clock(
    destination: Destination,
    runs: Sequence[RunRecord],
    max_future_skew_us: int,
    now_us: Callable[[], int],
) -> None:
    """Refuses a clock that earlier runs, or the destination's own clock, prove wrong.

    A slow clock would reject good payments as future ones; a fast one lets idle partitions run
    ahead, and empties the state. runs: the chain, or its tail. now_us: this machine's clock, in
    microseconds. Raises GuaranteeError.
    """
    check_goes_on(runs, max_future_skew_us, now_us())
    before = now_us()
    theirs = destination.clock_us()
    if theirs is None:
        return
    # It was read at some moment between two answers of this machine's clock.
    mine = min(max(theirs, before), now_us())
    _check_distance(
        mine,
        theirs,
        f"the clock of {destination.name}",
        max_future_skew_us,
        "Set this machine's clock (NTP)",
    )


def check_goes_on(runs: Sequence[RunRecord], max_future_skew_us: int, now_us: int) -> None:
    """Raises GuaranteeError when the clock lies further before the last plan's than is allowed.

    runs: the chain; the time of an aborted run does not count.
    """
    planned = max((run.plan_time for run in runs if run.status != ABORTED), default=now_us)
    _check_distance(
        min(now_us, planned),
        planned,
        "the time of the last run",
        max_future_skew_us,
        "Set this machine's clock (NTP); if it is right, the clock of that run was ahead: wait",
    )


def _check_distance(mine: int, theirs: int, what: str, allowed_us: int, advice: str) -> None:
    apart = abs(mine - theirs)
    if apart <= max(allowed_us, _CLOCKS_AGREE_US):
        return
    slow = mine < theirs
    consequence = (
        "payments that are in time would be rejected as future ones"
        if slow
        else "idle partitions would run ahead, and payments behind them would be late"
    )
    raise GuaranteeError(
        f"this machine's clock says {moment_in_words(mine)}, {span_in_words(apart)}"
        f" {'behind' if slow else 'ahead of'} {what}, {moment_in_words(theirs)};"
        f" --max_future_skew={format_duration(allowed_us)} allows less. By this clock"
        f" {consequence}."
        f" {advice}, or use"
        f" --max_future_skew={format_duration(-(-apart // _MINUTE_US) * _MINUTE_US)}"
        " or more if you accept that."
    )


def check_stream_quota(
    records: int, max_records_per_run: int, shards: int, streams_per_hour: int | None
) -> None:
    """Refuses a run that would create more write streams than the destination allows in an hour.

    Raises GuaranteeError with a --max_records_per_run that fits. A transaction creates one for each
    shard and table of records, and one each for gaps, totals and reports.
    """
    each = 3 * shards + 3
    wanted = -(-records // max_records_per_run) * each
    if streams_per_hour is not None and wanted > streams_per_hour:
        enough = -(-records * each // streams_per_hour)
        raise GuaranteeError(
            f"{counted(records, 'record')} in transactions of"
            f" --max_records_per_run={max_records_per_run} with --shards={shards} need up to"
            f" {wanted} write streams, but BigQuery creates {streams_per_hour} an hour. Use"
            f" --max_records_per_run={enough} or more, or fewer shards."
        )


def check_refused(
    refused: Iterable[tuple[TopicPartition, Iterable[int]]],
    runs: Sequence[RunRecord],
    states: Sequence[TopicState],
) -> None:
    """Raises GuaranteeError for a coordinate of --reject_records that this run will not read.

    states: under the names of the ledger, as the tables and messages have them.
    """
    known = {
        (part.topic, part.partition): part.to_offset for part in last_committed(runs).partitions
    }
    ends = {
        (state.topic, partition): high
        for state in states
        for partition, (_, high) in state.partitions.items()
    }
    names = {kafka_topic(state.topic): state.topic for state in states}
    for position, offsets in refused:
        name = names.get(kafka_topic(position[0]), position[0])
        hint = "" if name == position[0] else f" Its coordinates begin with {name} now."
        for offset in offsets:
            if not known.get(position, 0) <= offset < ends.get(position, 0):
                raise GuaranteeError(
                    f"--reject_records={position[0]}:{position[1]}:{offset}: this run reads offsets"
                    f" {known.get(position, 0)} to"
                    f" {ends.get(position, 0) - 1} of topic {position[0]} partition {position[1]}."
                    f"{hint} Correct the coordinate, or leave it out."
                )


def check_position(
    state: TopicState,
    partition: int,
    position: int,
    bounds: tuple[int, int],
    accept_data_loss: bool,
    way_on: str,
) -> None:
    """Raises GuaranteeError when the log does not hold `position` any more.

    bounds: the first offset and the end of the log. way_on: what a person can do, where records
    that were read are gone.
    """
    topic, (low, high) = state.topic, bounds
    if position > high:
        raise GuaranteeError(
            f"topic {topic} partition {partition}: the next offset to read is {position}, but the"
            f" log ends at {high}. Records that were read are gone from Kafka (log truncated, or"
            f" the topic recreated); their offsets would repeat. {way_on}"
        )
    if position < low and not accept_data_loss:
        raise GuaranteeError(
            f"topic {topic} partition {partition}: offsets {position} to {low - 1} were deleted"
            f" before they were read: at most {counted(low - position, 'record')}."
            " --on_data_loss=fail is in force; --on_data_loss=accept goes on at"
            f" {low} and writes the loss to offset_gaps."
        )


def check_same_topic(state: TopicState, known: Iterable[PartitionProgress], way_on: str) -> None:
    """Raises GuaranteeError when the topic was recreated since `known` was recorded.

    way_on: what a person can do then.
    """
    ids = {
        part.topic_id for part in known if part.topic == state.topic and part.topic_id is not None
    }
    if ids and state.topic_id not in ids:
        found = (
            "the broker does not tell its id any more"
            if state.topic_id is None
            else f"it now has the id {state.topic_id}"
        )
        raise GuaranteeError(
            f"topic {state.topic} was read with the id {', '.join(sorted(ids))}, but {found}: it"
            " was deleted and created again, so its offsets would repeat and what was not read of"
            f" the old one is lost. {way_on}"
        )


def none_vanished(
    state: TopicState, left: Mapping[TopicPartition, PartitionProgress], way_on: str
) -> None:
    """Raises GuaranteeError when a partition that was read does not exist any more.

    left: what the ledger knows and the broker does not. way_on: what a person can do then.
    """
    if missing := sorted(partition for topic, partition in left if topic == state.topic):
        raise GuaranteeError(
            f"topic {state.topic}: partition(s) {', '.join(map(str, missing))} were read into"
            " this destination but do not exist any more;"
            f" what was not read of them is lost. {way_on}"
        )


def check_cluster(
    runs: Sequence[RunRecord],
    states: Sequence[TopicState],
    cluster_id: str | None,
    command: str,
) -> None:
    """Raises GuaranteeError when a topic is to be read from another Kafka cluster than before.

    states: under the names of the ledger, new generations included. command: see way_on. A topic
    that is named for the first time must be where another one is, so that wrong servers are
    noticed.
    """
    record = last_claimed(runs)
    current = current_of(record)
    clusters = {one.topic: one.cluster_id for one in current.values()}
    moved = [
        state
        for state in states
        if state.topic in clusters and not is_on(cluster_id, clusters[state.topic])
    ]
    if moved:
        before = ", ".join(sorted({str(clusters[state.topic]) for state in moved}))
        raise GuaranteeError(
            f"--bootstrap_servers leads to the Kafka cluster {cluster_id}, but this destination was"
            f" filled from {before}: its positions mean nothing there."
            f" {_way_to_move(moved, record, command)}"
        )
    adopted = any(
        state.topic not in clusters and generation_of(state.topic) > 1 for state in states
    )
    new = [state.topic for state in states if kafka_topic(state.topic) not in current]
    if new and not adopted and not any(is_on(cluster_id, known) for known in clusters.values()):
        raise GuaranteeError(
            f"--bootstrap_servers leads to the Kafka cluster {cluster_id}, but this destination was"
            f" filled from {', '.join(sorted(map(str, set(clusters.values()))))}, and none of its"
            f" topics is there: {', '.join(new)} would be read for the first time, from another"
            " cluster than all the others. Use the servers of that cluster, or a new destination."
        )


def _way_to_move(moved: Sequence[TopicState], record: RunRecord, command: str) -> str:
    """moved: topics that are in another cluster than the record has them."""
    flags = [flag_of(state, record) for state in moved]
    otherwise = "Use the servers of that cluster, or a new destination."
    if None in flags:
        return otherwise
    return (
        f"{otherwise} If the topics have moved, `{command} {' '.join(map(str, flags))} {ACCEPT}`"
        " goes on with the new ones from their beginning, and gives up what was not read of the old"
        " ones."
    )


def check_repair_cluster(expired: RunRecord, topics: Sequence[str], cluster_id: str | None) -> None:
    """Raises GuaranteeError when a repair would read from another cluster than the expired run.

    topics: those of which records are needed.
    """
    if not is_on(cluster_id, expired.cluster_id):
        raise GuaranteeError(
            f"run {expired.run_id} has died while it became visible, and its write streams have"
            f" expired. To complete it, records of {', '.join(topics)} are needed from the Kafka"
            f" cluster {expired.cluster_id}, but --bootstrap_servers leads to {cluster_id}. Use the"
            " servers of that cluster; if it is not there any more, use a new destination."
        )
