"""Step 2 of a run: what is read, from where to where, and what it is judged by. Pure: ledger and broker answers in, numbers out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.kafka_admin import TopicState
from transforms.destinations.contract.run_ledger import COMMITTED, PartitionProgress, RunRecord
from transforms.model.coordinates import Position
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class PlannedPartition:
    """One partition of one run.

    from_offset .. to_offset (exclusive) is accounted for by this run; what lies before `read_from` was deleted and accepted as lost.
    start_watermark_us: what lateness is judged by, None for nothing; position_since_us: see PartitionProgress.
    load_watermark_us: what of the earlier ids may have expired; behind the start watermark for as long as the horizon has just grown.
    """

    topic: str
    partition: int
    topic_id: str | None
    from_offset: int
    read_from: int
    to_offset: int
    start_watermark_us: int | None
    load_watermark_us: int | None
    position_since_us: int


@dataclass(frozen=True)
class Repair:
    """What is visible already of a run whose other streams have expired, so that its ranges are read again.

    expired: what that run recorded. offsets: per (topic, partition) and table the offsets that have a row, sorted. gaps: the rows of
    `offset_gaps` as (first, last). totals: rows of `control_totals` for exactly the visible rows.
    """

    expired: RunRecord
    offsets: Mapping[Position, Mapping[str, NDArray[np.int64]]]
    gaps: Mapping[Position, Sequence[tuple[int, int]]]
    totals: pa.RecordBatch
    accept_data_loss: bool

    def before(self, position: Position) -> PartitionProgress:
        """What the expired run did in one partition."""
        return next(part for part in self.expired.partitions if (part.topic, part.partition) == position)

    def known(self, position: Position) -> NDArray[np.int64]:
        """Sorted offsets of one partition that have a row or lie in a gap that has one."""
        gaps = [np.arange(first, last + 1) for first, last in self.gaps.get(position, ())]
        return np.sort(np.concatenate([self.present(position), *gaps]))

    def present(self, position: Position) -> NDArray[np.int64]:
        """Sorted offsets of one partition that have a row in one of the three tables."""
        return np.sort(np.concatenate([_NONE, *self.offsets.get(position, {}).values()]))

    def rows(self, table: str) -> int:
        """Visible rows of one table."""
        if table == GAPS:
            return sum(map(len, self.gaps.values()))
        return sum(len(tables[table]) for tables in self.offsets.values() if table in tables)


@dataclass(frozen=True)
class Plan:
    """carried: partitions that this run does not read, as the ledger has them. repair: None for all but the second try of an expired run."""

    run_id: str
    predecessor: str
    plan_time_us: int
    cluster_id: str | None
    partitions: tuple[PlannedPartition, ...]
    carried: tuple[PartitionProgress, ...]
    repair: Repair | None = None

    def present(self, position: Position) -> NDArray[np.int64]:
        """Sorted offsets that have a row already: not judged and not written again."""
        return self.repair.present(position) if self.repair else _NONE

    @property
    def records_at_most(self) -> int:
        return sum(part.to_offset - part.from_offset for part in self.partitions)

    @property
    def lowest_watermark_us(self) -> int | None:
        """The bound of the SQL load: no split judges by less. None while nothing may be late. A repair loads what the expired run has loaded."""
        if self.repair is not None:
            return self.repair.expired.lowest_watermark
        return lowest(part.load_watermark_us for part in self.partitions)


@dataclass(frozen=True)
class PlanLimits:
    """From the configuration; times in microseconds. idle_timeout_us None: never."""

    dedup_horizon_us: int
    idle_timeout_us: int | None
    max_records_per_run: int
    accept_data_loss: bool


def lowest(watermarks: Iterable[int | None]) -> int | None:
    """The minimum; None if one is None, or there is none."""
    values = list(watermarks)
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None


def last_committed(runs: Sequence[RunRecord]) -> RunRecord:
    """The newest COMMITTED record of the chain: positions count from there."""
    return next(run for run in reversed(runs) if run.status == COMMITTED)


def make_plan(
    run_id: str, runs: Sequence[RunRecord], states: Sequence[TopicState], cluster_id: str | None, limits: PlanLimits, now_us: int
) -> Plan:
    """Plans the next run after the chain `runs` (never empty: the genesis record comes first). Raises GuaranteeError on lost data."""
    known = {(part.topic, part.partition): part for part in last_committed(runs).partitions}
    carried_minimum = lowest([part.watermark for part in known.values() if part.watermark is not None])
    load = _load_watermarks(runs, limits.dedup_horizon_us)
    load_minimum = lowest(load.values())
    planned = []
    for state in states:
        check_same_topic(state, known.values())
        for partition, (low, high) in sorted(state.partitions.items()):
            before = known.pop((state.topic, partition), None)
            loaded = load.get((state.topic, partition), load_minimum)
            planned.append(_plan_partition(state, partition, low, high, before, carried_minimum, loaded, limits, now_us))
    _none_vanished(states, known)
    ends = _share(planned, limits.max_records_per_run)
    parts = tuple(replace(part, to_offset=end) for part, end in zip(planned, ends, strict=True))
    return Plan(run_id, runs[-1].run_id, now_us, cluster_id, parts, tuple(_carried(part) for part in known.values()))


def backlog(runs: Sequence[RunRecord], states: Sequence[TopicState]) -> int:
    """Offsets between the committed positions and the end of the topics."""
    known = {(part.topic, part.partition): part.to_offset for part in last_committed(runs).partitions}
    return sum(
        max(0, high - max(low, known.get((state.topic, partition), low)))
        for state in states
        for partition, (low, high) in state.partitions.items()
    )


def check_stream_quota(records: int, max_records_per_run: int, shards: int, streams_per_hour: int | None) -> None:
    """Raises GuaranteeError where the transactions of this run would create more write streams than the destination allows in an hour.

    A transaction creates one for each shard and table of records, and one each for gaps, totals and reports.
    """
    each = 3 * shards + 3
    wanted = -(-records // max_records_per_run) * each
    if streams_per_hour is not None and wanted > streams_per_hour:
        enough = -(-records * each // streams_per_hour)
        raise GuaranteeError(
            f"{records} records in transactions of --max_records_per_run={max_records_per_run} with --shards={shards} need up to {wanted} write"
            f" streams, but BigQuery creates {streams_per_hour} an hour. Use --max_records_per_run={enough} or more, or fewer shards."
        )


def check_refused(refused: Iterable[tuple[Position, Iterable[int]]], runs: Sequence[RunRecord], states: Sequence[TopicState]) -> None:
    """Raises GuaranteeError for a coordinate of --reject_records that this run will not read."""
    known = {(part.topic, part.partition): part.to_offset for part in last_committed(runs).partitions}
    ends = {(state.topic, partition): high for state in states for partition, (_, high) in state.partitions.items()}
    for position, offsets in refused:
        for offset in offsets:
            if not known.get(position, 0) <= offset < ends.get(position, 0):
                raise GuaranteeError(
                    f"--reject_records={position[0]}:{position[1]}:{offset}: this run reads offsets {known.get(position, 0)} to"
                    f" {ends.get(position, 0) - 1} of topic {position[0]} partition {position[1]}. Correct the coordinate, or leave it out."
                )


def _carried(part: PartitionProgress) -> PartitionProgress:
    """As the ledger has it, but nothing was read of it by this run."""
    nothing = {"records": 0, "gap_offsets": 0, "coordinate_hash": 0}
    return msgspec.structs.replace(part, from_offset=part.to_offset, start_watermark=part.watermark, **nothing)


def _plan_partition(
    state: TopicState,
    partition: int,
    low: int,
    high: int,
    before: PartitionProgress | None,
    carried_minimum: int | None,
    load_watermark: int | None,
    limits: PlanLimits,
    now_us: int,
) -> PlannedPartition:
    position = before.to_offset if before else low
    check_position(state.topic, partition, position, low, high, limits.accept_data_loss)
    watermark = before.watermark if before and before.watermark is not None else carried_minimum
    since = before.position_since if before else now_us
    # Two answers of the broker show the same last offset, so nothing has arrived between `since`, when the first one was there, and the
    # moment before the second one was asked for. Not `now`: the answer may be old by then.
    idle = limits.idle_timeout_us is not None and position == high and state.asked_at_us - since >= limits.idle_timeout_us
    if idle and watermark is not None and state.asked_at_us - limits.dedup_horizon_us > watermark:
        watermark = load_watermark = state.asked_at_us - limits.dedup_horizon_us
    return PlannedPartition(state.topic, partition, state.topic_id, position, max(position, low), high, watermark, load_watermark, since)


def _load_watermarks(runs: Sequence[RunRecord], dedup_horizon_us: int) -> dict[Position, int]:
    """Per partition the watermark as the horizon of now would have made it: behind the recorded one where the horizon has grown since.

    The recorded one never goes back, so what is late stays late; but ids are to be remembered for the horizon of now.
    """
    marks: dict[Position, tuple[int, int]] = {}
    for run in runs:
        if run.status != COMMITTED:
            continue
        horizon = int(str(run.settings["dedup_horizon_us"]))
        for part in run.partitions:
            position = (part.topic, part.partition)
            if part.watermark is not None and marks.get(position, (None, 0))[0] != part.watermark:
                marks[position] = part.watermark, horizon
    return {position: mark - max(0, dedup_horizon_us - horizon) for position, (mark, horizon) in marks.items()}


def check_position(topic: str, partition: int, position: int, low: int, high: int, accept_data_loss: bool) -> None:
    """Raises GuaranteeError when the log does not hold `position` any more; low and high are its first offset and its end."""
    if position > high:
        raise GuaranteeError(
            f"topic {topic} partition {partition}: the next offset to read is {position}, but the log ends at {high}. Records that were read"
            " are gone from Kafka (log truncated, or the topic recreated); their offsets would repeat. Use a new topic name or a new destination."
        )
    if position < low and not accept_data_loss:
        raise GuaranteeError(
            f"topic {topic} partition {partition}: offsets {position} to {low - 1} were deleted before they were read ({low - position} records"
            " at most are lost). --on_data_loss=fail is in force; --on_data_loss=accept goes on at"
            f" {low} and writes the loss to offset_gaps."
        )


def check_same_topic(state: TopicState, known: Iterable[PartitionProgress]) -> None:
    """Raises GuaranteeError when the topic was recreated since `known` was recorded."""
    ids = {part.topic_id for part in known if part.topic == state.topic and part.topic_id is not None}
    if ids and state.topic_id not in ids:
        found = "the broker does not tell its id any more" if state.topic_id is None else f"it now has the id {state.topic_id}"
        raise GuaranteeError(
            f"topic {state.topic} was read with the id {', '.join(sorted(ids))}, but {found}: it was deleted and created again, so its"
            " offsets would repeat and what was not read of the old one is lost. Use a new topic name, or a new destination."
        )


def _none_vanished(states: Sequence[TopicState], left: Mapping[Position, PartitionProgress]) -> None:
    for state in states:
        if gone := sorted(partition for topic, partition in left if topic == state.topic):
            raise GuaranteeError(
                f"topic {state.topic}: partition(s) {', '.join(map(str, gone))} were read into this destination but do not exist any more;"
                " what was not read of them is lost. Use a new topic name, or a new destination."
            )


def _share(partitions: Sequence[PlannedPartition], budget: int) -> list[int]:
    """Ends per partition: the budget spread evenly, what one partition does not need goes to the others. Lost offsets cost nothing.

    Every partition gets at least one record, however small the budget: one that had to wait would be judged by what the others have read.
    """
    ends = [part.read_from for part in partitions]
    waiting = {index: part.to_offset - part.read_from for index, part in enumerate(partitions) if part.to_offset > part.read_from}
    budget = max(budget, len(waiting))
    while waiting and budget > 0:
        each = max(1, budget // len(waiting))
        for index in list(waiting):
            taken = min(each, waiting[index], budget)
            ends[index] += taken
            waiting[index] -= taken
            budget -= taken
            if not waiting[index]:
                del waiting[index]
    return ends
