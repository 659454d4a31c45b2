"""DeduplicateAndWrite: the DoFn over bundle.py. Dedup and append are one step, keyed by shard.

`process` and the timer only collect: batches, handles of state cells, the watermark of an expiry.
`finish_bundle` does the work for all shards of the bundle together, so that they recover with one
claim and one query, and each appends once. State cells may still be written there: the SDK commits
user state when the bundle's operators finish, and closes the timer streams after that
(apache_beam/runners/worker/operations.py, DoOperation.finish). No API promises it, so
tests/cluster/test_flink_state.py pins it on a real runner.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import WindowedValue

from transforms import metrics
from transforms.deduplicate.process_memory import memory_of
from transforms.deduplicate.ring import with_ring
from transforms.destinations.contract.destination import Destination
from transforms.model.coders import encode_rows
from transforms.model.elements import StreamBatch, merge
from transforms.model.rejected import LATE
from transforms.stream.bundle import FinishedBundle, StreamBundle, StreamSettings
from transforms.stream.stop_on_error import StopOnError

GAPS: Final = "gaps"
TOTALS: Final = "totals"

_SUBJECT: Final = "shards"
"""Of stop marks: what the next attempt looks at again, by a recovery and a replay."""


class StateOfShard:
    """The state cells of one shard as transforms/stream/state.py wants them, and its timer."""

    def __init__(self, head: Any, ring: tuple[Any, ...], timer: Any) -> None:
        self._head = head
        self._ring = ring
        self.timer = timer

    def read_head(self) -> bytes | None:
        return self._head.read() or None

    def write_head(self, cell: bytes) -> None:
        self._head.write(cell)

    def read_blobs(self) -> Iterator[bytes]:
        return (blob for bag in self._ring for blob in bag.read())

    def add_blob(self, slot: int, blob: bytes) -> None:
        self._ring[slot].add(blob)

    def clear_slot(self, slot: int) -> None:
        self._ring[slot].clear()


class DeduplicateAndWrite(beam.DoFn):
    """(shard, StreamBatch) -> TOTALS: (0, encoded rows of control_totals), GAPS: (0, GapAnswer).

    Raises what bundle.py raises, and then the runner starts again from the last checkpoint.
    """

    HEAD = ReadModifyWriteStateSpec("head", BytesCoder())
    EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)

    def __init__(
        self, destination: Destination, settings: StreamSettings, stop: StopOnError
    ) -> None:
        self._destination = destination
        self._settings = settings
        self._stop = stop

    def setup(self) -> None:
        self._destination.__enter__()

    def teardown(self) -> None:
        self._destination.__exit__(None, None, None)

    def start_bundle(self) -> None:
        self._cells: dict[int, StateOfShard] = {}
        self._batches: dict[int, list[StreamBatch]] = {}
        self._expiries: dict[int, int] = {}

    @with_ring
    def process(
        self,
        element: tuple[int, StreamBatch],
        head: Any = beam.DoFn.StateParam(HEAD),
        expiry: Any = beam.DoFn.TimerParam(EXPIRY),
        ring: Any = None,
    ) -> None:
        shard, batch = element
        self._cells.setdefault(shard, StateOfShard(head, ring, expiry))
        self._batches.setdefault(shard, []).append(batch)

    @on_timer(EXPIRY)  # type: ignore[untyped-decorator]
    @with_ring
    def expire(
        self,
        shard: int = beam.DoFn.KeyParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
        head: Any = beam.DoFn.StateParam(HEAD),
        expiry: Any = beam.DoFn.TimerParam(EXPIRY),
        ring: Any = None,
    ) -> None:
        self._cells.setdefault(shard, StateOfShard(head, ring, expiry))
        self._expiries[shard] = max(timestamp.micros, self._expiries.get(shard, timestamp.micros))

    def finish_bundle(self) -> Iterator[Any]:
        memory = memory_of(self._settings.job.job_id, "deduplicate_and_write")
        bundle = StreamBundle(self._destination, self._settings, memory)
        with self._stop.watching(_SUBJECT, bundle.claimed):
            finished = self._work(bundle)
        self._stop.went_well(_SUBJECT)
        for shard, cells in self._cells.items():
            # Rounded up to the milliseconds of timers, so that none fires before its ids expire.
            expires_us = bundle.next_expiry(shard)
            if expires_us is not None:
                cells.timer.set(Timestamp(micros=-(-expires_us // 1000) * 1000))
        self._count(finished)
        self.start_bundle()
        for rows in finished.totals.values():
            yield _tagged(TOTALS, encode_rows(rows))
        for answer in finished.answers:
            yield _tagged(GAPS, answer)

    def _work(self, bundle: StreamBundle) -> FinishedBundle:
        bundle.open(self._cells)
        for shard, batches in self._batches.items():
            bundle.process(shard, merge(batches))
        for shard, watermark_us in self._expiries.items():
            bundle.expire(shard, watermark_us)
        return bundle.finish()

    def _count(self, finished: FinishedBundle) -> None:
        batches = [batch for mine in self._batches.values() for batch in mine]
        metrics.count(metrics.BUNDLES, 1)
        metrics.count(metrics.LATE_BEHIND_EXPIRY, finished.late_behind_expiry)
        metrics.count(metrics.RECOVERED_SHARDS, finished.recovered_shards)
        metrics.count(metrics.PRESENT_ROWS, finished.present_rows)
        for shard, ids in finished.live_ids.items():
            metrics.show(metrics.LIVE_IDS, shard, ids)
            metrics.show(metrics.STATE_BYTES, shard, finished.state_bytes[shard])
        for rows in finished.totals.values():
            for row in rows.select(["outcome", "records"]).to_pylist():
                metrics.count(row["outcome"], row["records"])
        metrics.count_reasons(batch.rejected for batch in batches if batch.rejected.num_rows)
        metrics.count_reason(LATE, finished.late_behind_expiry)
        metrics.count_latencies(
            (batch.payments.column("kafka_timestamp") for batch in batches),
            self._settings.now_us(),
        )


def _tagged(tag: str, value: Any) -> beam.pvalue.TaggedOutput:
    keyed = WindowedValue((0, value), MIN_TIMESTAMP, [GlobalWindow()])
    return beam.pvalue.TaggedOutput(tag, keyed)
