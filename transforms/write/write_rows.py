"""WriteRows: all tables of a shard, each into a pending stream of this bundle attempt alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from transforms import metrics
from transforms.destinations.appends import FailBundle, TableAppends
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.write_streams import WriteStreams
from transforms.model.buckets import event_times_us
from transforms.model.coders import encode_rows
from transforms.model.coordinates import HASH_MASK, coordinate_sum
from transforms.model.elements import ShardOutcome
from transforms.model.partitions import by_partition
from transforms.model.rejected_counts import RejectedCount, count_rejected, merge_rejected
from transforms.model.run_report import PartitionWritten, ShardReport, encode_report
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED
from transforms.model.totals import add_up

_written_by_this_process = 0


def rows_written() -> int:
    """Rows that this process has appended since its start, to see that a run goes on."""
    return _written_by_this_process


class ShardWriter:
    """All tables of one shard within one bundle attempt."""

    def __init__(self, destination: WriteStreams, shard: int) -> None:
        self._destination = destination
        self._shard = shard
        self._tables: dict[str, TableAppends] = {}
        self._partitions: dict[tuple[str, int, str], PartitionWritten] = {}
        self._totals: list[pa.RecordBatch] = []
        self._live_ids: dict[int, int] = {}
        self._rejected: list[RejectedCount] = []
        self._ids: list[bytes] | None = []

    def add(self, outcome: ShardOutcome) -> None:
        """Appends the rows of a batch, and counts them."""
        global _written_by_this_process
        for table, rows in outcome.tables.items():
            _written_by_this_process += rows.num_rows
            if table not in self._tables:
                self._tables[table] = TableAppends(self._destination, table, FailBundle())
            self._tables[table].add(rows)
            for written in count_partitions(table, rows):
                key = (written.topic, written.partition, table)
                self._partitions[key] = _sum(self._partitions.get(key), written)
        if rejected := outcome.tables.get(REJECTED):
            self._rejected = merge_rejected([*self._rejected, *count_rejected(rejected)])
        self._totals.append(outcome.totals)
        for bucket, change in outcome.live_ids:
            self._live_ids[bucket] = self._live_ids.get(bucket, 0) + change
        if outcome.ids is None or self._ids is None:
            self._ids = None
        elif outcome.ids:
            self._ids.append(outcome.ids)

    def send_rest(self) -> None:
        """Sends the last appends of all tables, and waits for none."""
        for appends in self._tables.values():
            appends.send()

    def finish(self) -> ShardReport:
        """The report of the shard, once every row is acknowledged."""
        streams = [written for appends in self._tables.values() if (written := appends.written())]
        totals = encode_rows(add_up(self._totals))
        return ShardReport(
            self._shard,
            streams,
            list(self._partitions.values()),
            totals,
            self._live_ids,
            self._rejected,
            self._ids,
        )


class WriteRows(beam.DoFn):
    """ShardOutcome -> encoded ShardReport, one per shard at the end of the bundle.

    A report says that every append of its shard is acknowledged. A retried bundle writes to other
    streams; those of the failed attempt are never committed.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._open: Destination | None = None

    def start_bundle(self) -> None:
        self._close()
        self._open = self._destination.__enter__()
        self._shards: dict[int, ShardWriter] = {}

    def process(self, outcome: ShardOutcome) -> None:
        assert self._open is not None
        if outcome.shard not in self._shards:
            self._shards[outcome.shard] = ShardWriter(self._open.streams, outcome.shard)
        self._shards[outcome.shard].add(outcome)

    def finish_bundle(self) -> Iterator[Any]:
        # The last appends of all shards are in flight together.
        for writer in self._shards.values():
            writer.send_rest()
        reports = [writer.finish() for writer in self._shards.values()]
        self._close()
        _count(reports)
        for report in reports:
            yield WindowedValue(encode_report(report), 0, [GlobalWindow()])

    def teardown(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


_OUTCOMES: Final = {
    PAYMENTS: metrics.ACCEPTED, DUPLICATES: metrics.DUPLICATE, REJECTED: metrics.REJECTED,
}  # fmt: skip


def _count(reports: list[ShardReport]) -> None:
    """Records by outcome and reason."""
    for report in reports:
        for written in report.partitions:
            metrics.count(_OUTCOMES[written.table], written.records)
        for rejected in report.rejected:
            metrics.count_reason(rejected.reason, rejected.records)


def count_partitions(table: str, rows: pa.RecordBatch) -> Iterator[PartitionWritten]:
    """Records, coordinate hash and highest event time of `rows` per topic and partition."""
    offsets = rows.column("kafka_offset").to_numpy()
    event_times = None if table == REJECTED else event_times_us(rows)
    for topic, partition, mine in by_partition(rows):
        yield PartitionWritten(
            topic,
            partition,
            table,
            len(mine),
            coordinate_sum(topic, partition, offsets[mine]),
            None if event_times is None else int(event_times[mine].max()),
        )


def _sum(before: PartitionWritten | None, more: PartitionWritten) -> PartitionWritten:
    if before is None:
        return more
    times = [
        time
        for time in (before.highest_event_time_us, more.highest_event_time_us)
        if time is not None
    ]
    return PartitionWritten(
        more.topic,
        more.partition,
        more.table,
        before.records + more.records,
        (before.coordinate_hash + more.coordinate_hash) & HASH_MASK,
        max(times) if times else None,
    )
