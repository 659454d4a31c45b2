"""What refuses a run before it reads anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pipeline.kafka_admin import TopicState
from transforms.destinations.contract.run_ledger import PartitionProgress, RunRecord, last_committed
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError


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
            f"{records} records in transactions of --max_records_per_run={max_records_per_run} with"
            f" --shards={shards} need up to {wanted} write streams, but BigQuery creates"
            f" {streams_per_hour} an hour. Use"
            f" --max_records_per_run={enough} or more, or fewer shards."
        )


def check_refused(
    refused: Iterable[tuple[TopicPartition, Iterable[int]]],
    runs: Sequence[RunRecord],
    states: Sequence[TopicState],
) -> None:
    """Raises GuaranteeError for a coordinate of --reject_records that this run will not read."""
    known = {
        (part.topic, part.partition): part.to_offset for part in last_committed(runs).partitions
    }
    ends = {
        (state.topic, partition): high
        for state in states
        for partition, (_, high) in state.partitions.items()
    }
    for position, offsets in refused:
        for offset in offsets:
            if not known.get(position, 0) <= offset < ends.get(position, 0):
                raise GuaranteeError(
                    f"--reject_records={position[0]}:{position[1]}:{offset}: this run reads offsets"
                    f" {known.get(position, 0)} to"
                    f" {ends.get(position, 0) - 1} of topic {position[0]} partition {position[1]}."
                    " Correct the coordinate, or leave it out."
                )


def check_position(
    topic: str, partition: int, position: int, low: int, high: int, accept_data_loss: bool
) -> None:
    """Raises GuaranteeError when the log does not hold `position` any more.

    low, high: the first offset and the end of the log.
    """
    if position > high:
        raise GuaranteeError(
            f"topic {topic} partition {partition}: the next offset to read is {position}, but the"
            f" log ends at {high}. Records that were read are gone from Kafka (log truncated, or"
            " the topic recreated); their offsets would repeat. Use a new topic name or a new"
            " destination."
        )
    if position < low and not accept_data_loss:
        raise GuaranteeError(
            f"topic {topic} partition {partition}: offsets {position} to {low - 1} were deleted"
            f" before they were read ({low - position} records at most are lost)."
            " --on_data_loss=fail is in force; --on_data_loss=accept goes on at"
            f" {low} and writes the loss to offset_gaps."
        )


def check_same_topic(state: TopicState, known: Iterable[PartitionProgress]) -> None:
    """Raises GuaranteeError when the topic was recreated since `known` was recorded."""
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
            " the old one is lost. Use a new topic name, or a new destination."
        )


def none_vanished(
    states: Sequence[TopicState], left: Mapping[TopicPartition, PartitionProgress]
) -> None:
    """Raises GuaranteeError when a partition that was read does not exist any more.

    left: what the ledger knows and the broker does not.
    """
    for state in states:
        if missing := sorted(partition for topic, partition in left if topic == state.topic):
            raise GuaranteeError(
                f"topic {state.topic}: partition(s) {', '.join(map(str, missing))} were read into"
                " this destination but do not exist any more;"
                " what was not read of them is lost. Use a new topic name, or a new destination."
            )


def check_cluster(runs: Sequence[RunRecord], cluster_id: str | None) -> None:
    """Raises GuaranteeError when the broker belongs to another Kafka cluster than before."""
    before = last_committed(runs).cluster_id
    if before is not None and before != cluster_id:
        raise GuaranteeError(
            f"--bootstrap_servers leads to the Kafka cluster {cluster_id}, but this destination was"
            f" filled from {before}: its positions mean nothing there. Use the servers of that"
            " cluster, or a new destination."
        )
