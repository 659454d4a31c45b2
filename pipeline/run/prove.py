"""Step 4 of a run: proof that the tables are about to hold exactly what the readers delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.counted import counted
from pipeline.run.gaps import gap_rows, gaps_of
from pipeline.run.plan import Plan, PlannedPartition, Repair
from transforms.destinations.contract.run_ledger import PartitionProgress
from transforms.model.coders import decode_rows
from transforms.model.coordinates import HASH_MASK, TopicPartition, coordinate_sum
from transforms.model.errors import GuaranteeError
from transforms.model.rejected_counts import RejectedCount, merge_rejected
from transforms.model.run_report import PartitionWritten, ReaderReport, Report, ShardReport
from transforms.model.totals import add_up


@dataclass(frozen=True)
class Proof:
    """What was read and written, proven equal.

    streams: table -> [(stream, rows)] in shard order. rejected: rows of `rejected_records` by
    cause, the most frequent first. ids: new ids and those that moved, see ShardOutcome; None where
    a report does not tell.
    """

    partitions: tuple[PartitionProgress, ...]
    streams: Mapping[str, list[tuple[str, int]]]
    gaps: pa.RecordBatch
    totals: pa.RecordBatch
    live_id_changes: Mapping[int, int]
    rejected: Sequence[RejectedCount]
    ids: Sequence[bytes] | None


@dataclass
class _Written:
    records: int = 0
    coordinate_hash: int = 0
    highest_event_time_us: int | None = None

    def add(self, part: PartitionWritten) -> None:
        self.records += part.records
        self.coordinate_hash = (self.coordinate_hash + part.coordinate_hash) & HASH_MASK
        times = [
            time
            for time in (self.highest_event_time_us, part.highest_event_time_us)
            if time is not None
        ]
        self.highest_event_time_us = max(times, default=None)


def prove(
    plan: Plan, reports: Sequence[Report], finalized_rows: Mapping[str, int], dedup_horizon_us: int
) -> Proof:
    """Proves for each partition delivered = written, and for each stream reported = finalized.

    finalized_rows: stream -> rows, as finalizing it counted them. Raises GuaranteeError, with
    nothing visible, where they differ.
    """
    shards = sorted(
        (report for report in reports if isinstance(report, ShardReport)),
        key=lambda report: report.shard,
    )
    readers = {
        (report.topic, report.partition): report
        for report in reports
        if isinstance(report, ReaderReport)
    }
    _each_once("shard", [report.shard for report in shards])
    _each_once(
        "partition",
        [
            (report.topic, report.partition)
            for report in reports
            if isinstance(report, ReaderReport)
        ],
    )
    written = _written_by_partition(shards)
    if surplus := set(written) - set(readers):
        raise _broken(f"rows of partitions that no reader reported: {sorted(surplus)}")
    for report in shards:
        for stream in report.streams:
            if finalized_rows.get(stream.stream) != stream.rows:
                raise _broken(
                    f"stream {stream.stream} holds {finalized_rows.get(stream.stream)} of the"
                    f" {counted(stream.rows, 'row')} that were reported"
                )
    streams: dict[str, list[tuple[str, int]]] = {}
    for report in shards:
        for stream in report.streams:
            streams.setdefault(stream.table, []).append((stream.stream, stream.rows))
    _streams_hold_what_was_counted(shards)
    progress = tuple(
        _progress(part, readers, written, plan, dedup_horizon_us) for part in plan.partitions
    )
    totals = add_up(
        [
            *(decode_rows(report.totals) for report in shards),
            *([plan.repair.totals] if plan.repair else []),
        ]
    )
    return Proof(
        progress,
        streams,
        gap_rows(plan, readers, progress),
        totals,
        _live_changes(shards),
        merge_rejected(count for report in shards for count in report.rejected),
        _ids(shards),
    )


def _progress(
    part: PlannedPartition,
    readers: Mapping[TopicPartition, ReaderReport],
    written: Mapping[TopicPartition, _Written],
    plan: Plan,
    dedup_horizon_us: int,
) -> PartitionProgress:
    where, position = f"topic {part.topic} partition {part.partition}", (part.topic, part.partition)
    report = readers.get(position)
    rows = written.get(position, _Written())
    planned = (part.read_from, part.to_offset) if part.to_offset > part.read_from else None
    if (report and (report.from_offset, report.to_offset)) != planned:
        raise _broken(f"{where}: planned offsets {planned}, reported {report}")
    records, coordinate_hash = (report.records, report.coordinate_hash) if report else (0, 0)
    # Of a repaired run, some rows are visible already, and of what a streaming job has written
    # above its position; Kafka may have compacted or deleted their records meanwhile.
    present = plan.present(position)
    delivered_again = _delivered(present, report)
    expected = (
        records - int(delivered_again.sum()),
        _minus(coordinate_hash, part, present[delivered_again]),
    )
    # The sum of hashes notices a record that was written twice while another one was left out.
    if expected != (rows.records, rows.coordinate_hash):
        raise _broken(
            f"{where}: the reader delivered {counted(expected[0], 'record')}, the tables are"
            f" about to get {rows.records:,} or other ones"
        )
    records += int((~delivered_again).sum())
    coordinate_hash = (
        coordinate_hash + coordinate_sum(part.topic, part.partition, present[~delivered_again])
    ) & HASH_MASK
    if plan.repair:
        _nothing_lost_since(plan.repair, position, records, coordinate_hash)
    gaps = sum(last - first + 1 for first, last, _ in gaps_of(part, report, present))
    if records + gaps != part.to_offset - part.from_offset:
        raise _broken(
            f"{where}: {counted(records, 'record')} and {counted(gaps, 'gap')} do not fill offsets"
            f" {part.from_offset} to {part.to_offset}"
        )
    # Only payments and duplicates count: a rejected record's event time is not to be trusted.
    times = [rows.highest_event_time_us, plan.highest_us.get(position)]
    highest = max((time - dedup_horizon_us for time in times if time is not None), default=None)
    before = plan.repair.before(position).watermark if plan.repair else None
    # Rejected records alone must not hold back expiry for ever.
    idle = part.idle_watermark_us if highest is None else None
    reached = [
        mark for mark in (part.start_watermark_us, highest, idle, before) if mark is not None
    ]
    return PartitionProgress(
        topic=part.topic,
        partition=part.partition,
        topic_id=part.topic_id,
        from_offset=part.from_offset,
        to_offset=part.to_offset,
        records=records,
        gap_offsets=gaps,
        coordinate_hash=coordinate_hash,
        start_watermark=part.start_watermark_us,
        watermark=max(reached) if reached else None,
        position_since=part.position_since_us if highest is None else plan.plan_time_us,
    )


def _nothing_lost_since(
    repair: Repair, position: TopicPartition, records: int, coordinate_hash: int
) -> None:
    """Raises GuaranteeError where Kafka and the tables hold less than the expired run had read.

    Compaction between the two reads leaves no trace but the record of the first one.
    """
    before = repair.before(position)
    if (records, coordinate_hash) != (
        before.records,
        before.coordinate_hash,
    ) and not repair.accept_data_loss:
        raise GuaranteeError(
            f"topic {position[0]} partition {position[1]}: of offsets {before.from_offset} to"
            f" {before.to_offset - 1}"
            f" {counted(before.records, 'record was', 'records were')} read by a run whose streams"
            f" have expired, but Kafka and the tables together hold {records} of them now: the"
            " others were compacted away before they became visible. --on_data_loss=fail is in"
            " force; --on_data_loss=accept goes on and writes the loss to offset_gaps."
        )


def _delivered(present: NDArray[np.int64], report: ReaderReport | None) -> NDArray[np.bool_]:
    """Which of the offsets the reader has delivered: those of its range that lie in none of its
    gaps.
    """
    if report is None:
        return np.zeros(len(present), dtype=bool)
    delivered = (present >= report.from_offset) & (present < report.to_offset)
    for first, last in report.gaps:
        delivered &= (present < first) | (present > last)
    return delivered


def _minus(coordinate_hash: int, part: PlannedPartition, offsets: NDArray[np.int64]) -> int:
    return (coordinate_hash - coordinate_sum(part.topic, part.partition, offsets)) & HASH_MASK


def _written_by_partition(shards: Sequence[ShardReport]) -> dict[TopicPartition, _Written]:
    written: dict[TopicPartition, _Written] = {}
    for report in shards:
        for part in report.partitions:
            written.setdefault((part.topic, part.partition), _Written()).add(part)
    return written


def _streams_hold_what_was_counted(shards: Sequence[ShardReport]) -> None:
    for report in shards:
        counted: dict[str, int] = {}
        for part in report.partitions:
            counted[part.table] = counted.get(part.table, 0) + part.records
        if counted != {stream.table: stream.rows for stream in report.streams}:
            raise _broken(
                f"shard {report.shard}: its streams hold other numbers of rows than it counted"
            )


def _live_changes(shards: Sequence[ShardReport]) -> dict[int, int]:
    changes: dict[int, int] = {}
    for report in shards:
        for bucket, change in report.live_ids.items():
            changes[bucket] = changes.get(bucket, 0) + change
    return changes


def _ids(shards: Sequence[ShardReport]) -> list[bytes] | None:
    found = [report.ids for report in shards]
    known = [ids for ids in found if ids is not None]
    return list(chain.from_iterable(known)) if len(known) == len(found) else None


def _each_once(what: str, keys: Sequence[object]) -> None:
    if len(set(keys)) != len(keys):
        raise _broken(f"more than one report of one {what} in a set: {sorted(map(str, keys))}")


def _broken(what: str) -> GuaranteeError:
    return GuaranteeError(
        f"the run cannot prove its rows: {what}. Nothing of it is visible; run again, and report"
        " this line if it repeats."
    )
