"""Step 4 of a run, first half: what the readers delivered is exactly what the three tables are about to hold; otherwise nothing is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.plan import Plan, PlannedPartition, Position
from transforms.coders import decode_rows
from transforms.errors import GuaranteeError
from transforms.run_record import PartitionProgress
from transforms.run_report import PartitionWritten, ReaderReport, Report, ShardReport
from transforms.tables import GAPS_SCHEMA
from transforms.totals import add_up

_HASH_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Proof:
    """What was read and written, proven equal. streams: table -> [(stream, rows)] in shard order."""

    partitions: tuple[PartitionProgress, ...]
    streams: Mapping[str, list[tuple[str, int]]]
    gaps: pa.RecordBatch
    totals: pa.RecordBatch
    live_id_changes: Mapping[int, int]


@dataclass
class _Written:
    records: int = 0
    coordinate_hash: int = 0
    highest_event_time_us: int | None = None

    def add(self, part: PartitionWritten) -> None:
        self.records += part.records
        self.coordinate_hash = (self.coordinate_hash + part.coordinate_hash) & _HASH_MASK
        times = [time for time in (self.highest_event_time_us, part.highest_event_time_us) if time is not None]
        self.highest_event_time_us = max(times, default=None)


def prove(plan: Plan, reports: Sequence[Report], finalized_rows: Mapping[str, int], dedup_horizon_us: int) -> Proof:
    """Raises GuaranteeError, with nothing visible, unless for each partition delivered = written, and for each stream reported = finalized.

    finalized_rows: stream -> rows, as `finalize_stream` counted them.
    """
    shards = sorted((report for report in reports if isinstance(report, ShardReport)), key=lambda report: report.shard)
    readers = {(report.topic, report.partition): report for report in reports if isinstance(report, ReaderReport)}
    _each_once("shard", [report.shard for report in shards])
    _each_once("partition", [(report.topic, report.partition) for report in reports if isinstance(report, ReaderReport)])
    written = _written_by_partition(shards)
    if surplus := set(written) - set(readers):
        raise _broken(f"rows of partitions that no reader reported: {sorted(surplus)}")
    for report in shards:
        for stream in report.streams:
            if finalized_rows.get(stream.stream) != stream.rows:
                raise _broken(f"stream {stream.stream} holds {finalized_rows.get(stream.stream)} rows, {stream.rows} were reported")
    streams: dict[str, list[tuple[str, int]]] = {}
    for report in shards:
        for stream in report.streams:
            streams.setdefault(stream.table, []).append((stream.stream, stream.rows))
    _streams_hold_what_was_counted(shards)
    progress = tuple(_progress(part, readers, written, plan.plan_time_us, dedup_horizon_us) for part in plan.partitions)
    totals = add_up([decode_rows(report.totals) for report in shards])
    return Proof(progress, streams, _gap_rows(plan, readers), totals, _live_changes(shards))


def _progress(
    part: PlannedPartition,
    readers: Mapping[Position, ReaderReport],
    written: Mapping[Position, _Written],
    plan_time_us: int,
    dedup_horizon_us: int,
) -> PartitionProgress:
    where = f"topic {part.topic} partition {part.partition}"
    report = readers.get((part.topic, part.partition))
    rows = written.get((part.topic, part.partition), _Written())
    planned = (part.read_from, part.to_offset) if part.to_offset > part.read_from else None
    if (report and (report.from_offset, report.to_offset)) != planned:
        raise _broken(f"{where}: planned offsets {planned}, reported {report}")
    delivered = (report.records, report.coordinate_hash) if report else (0, 0)
    if delivered != (rows.records, rows.coordinate_hash):
        raise _broken(f"{where}: the reader delivered {delivered[0]} records, the tables are about to get {rows.records} or other ones")
    gaps = sum(last - first + 1 for first, last in report.gaps) if report else 0
    lost = min(part.read_from, part.to_offset) - part.from_offset
    if delivered[0] + gaps + lost != part.to_offset - part.from_offset:
        raise _broken(f"{where}: {delivered[0]} records and {gaps + lost} gaps do not fill offsets {part.from_offset} to {part.to_offset}")
    highest = rows.highest_event_time_us
    reached = [mark for mark in (part.start_watermark_us, None if highest is None else highest - dedup_horizon_us) if mark is not None]
    return PartitionProgress(
        topic=part.topic,
        partition=part.partition,
        topic_id=part.topic_id,
        from_offset=part.from_offset,
        to_offset=part.to_offset,
        records=delivered[0],
        gap_offsets=gaps + lost,
        coordinate_hash=delivered[1],
        start_watermark=part.start_watermark_us,
        watermark=max(reached) if reached else None,
        position_since=part.position_since_us if part.to_offset == part.from_offset else plan_time_us,
    )


def _written_by_partition(shards: Sequence[ShardReport]) -> dict[Position, _Written]:
    written: dict[Position, _Written] = {}
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
            raise _broken(f"shard {report.shard}: its streams hold other numbers of rows than it counted")


def _gap_rows(plan: Plan, readers: Mapping[Position, ReaderReport]) -> pa.RecordBatch:
    rows = []
    for part in plan.partitions:
        lost_behind = min(part.read_from, part.to_offset)
        gaps = [(part.from_offset, lost_behind - 1, "deleted")] if lost_behind > part.from_offset else []
        if report := readers.get((part.topic, part.partition)):
            gaps += [(first, last, "no_record") for first, last in report.gaps]
        rows += [
            {"kafka_topic": part.topic, "kafka_partition": part.partition, "first_offset": first, "last_offset": last, "cause": cause}
            for first, last, cause in gaps
        ]
    return pa.RecordBatch.from_pylist(rows, schema=GAPS_SCHEMA)


def _live_changes(shards: Sequence[ShardReport]) -> dict[int, int]:
    changes: dict[int, int] = {}
    for report in shards:
        for bucket, change in report.live_ids.items():
            changes[bucket] = changes.get(bucket, 0) + change
    return changes


def _each_once(what: str, keys: Sequence[object]) -> None:
    if len(set(keys)) != len(keys):
        raise _broken(f"more than one report of one {what} in a set: {sorted(map(str, keys))}")


def _broken(what: str) -> GuaranteeError:
    return GuaranteeError(
        f"the run cannot prove its rows: {what}. Nothing of it is visible; run again, and report this line if it repeats."
    )
