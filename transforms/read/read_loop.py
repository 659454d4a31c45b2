"""ReadLoop: reads partitions for ever, by a timer for each that is set again at each poll.

State and timer are keyed by partition: position and watermark stand in one cell, so a checkpoint
holds both of one moment. The timer holds the output at the partition's watermark, so the runner's
watermark behind this step is the minimum of all partitions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import msgspec
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.typehints import with_output_types
from apache_beam.utils.timestamp import MIN_TIMESTAMP, Timestamp
from confluent_kafka.admin import AdminClient

from transforms import metrics
from transforms.model.elements import StreamBatch
from transforms.read.feed import set_timer
from transforms.read.kept_loops import keep_loop, take_loop
from transforms.read.partition_loop import Judge, PartitionLoop, ReadSettings, Step
from transforms.read.partition_poller import PartitionPoller
from transforms.read.position import PartitionPosition, decode_position, encode_position
from transforms.read.stop import StopOnError
from transforms.read.topic_identity import admin_client


@with_output_types(tuple[int, StreamBatch])
class ReadLoop(beam.DoFn):
    """(topic:partition, encoded PartitionPosition) -> (shard, StreamBatch)."""

    AT = ReadModifyWriteStateSpec("at", BytesCoder())
    POLL = TimerSpec("poll", TimeDomain.REAL_TIME)

    def __init__(
        self,
        settings: ReadSettings,
        judge: Judge,
        stop: StopOnError,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """stop: what to do about an error. now_us: the clock, microseconds since 1970."""
        self._settings = settings
        self._judge = judge
        self._stop = stop
        self._now_us = now_us
        self._admin: AdminClient | None = None

    def setup(self) -> None:
        self._admin = admin_client(self._settings.consumer_config)

    def process(
        self,
        element: tuple[str, bytes],
        at: Any = beam.DoFn.StateParam(AT),
        poll: Any = beam.DoFn.TimerParam(POLL),
    ) -> None:
        if at.read():
            return
        position = decode_position(element[1])
        if position.is_new:
            # No watermark of the runner is later than the clock allows: events from the future are
            # rejected.
            below = self._now_us() + self._settings.max_future_skew_us
            below -= self._settings.dedup_horizon_us
            position = msgspec.structs.replace(position, payloads_below=below)
        at.write(encode_position(position))
        self._poll_again(poll, 0, position.watermark_us)

    @on_timer(POLL)  # type: ignore[untyped-decorator]
    def read(
        self,
        at: Any = beam.DoFn.StateParam(AT),
        poll: Any = beam.DoFn.TimerParam(POLL),
    ) -> Iterator[tuple[int, StreamBatch]]:
        position = decode_position(at.read())
        where = self._settings.job_id, position.topic, position.partition
        subject = f"{position.topic}:{position.partition}"
        loop = take_loop(*where) or self._new_loop(position)
        # A poll that fails leaves nothing behind: the next one begins with a consumer of its own.
        try:
            with self._stop.watching(subject):
                step = loop.step(position, self._judge)
        except BaseException:
            loop.close()
            raise
        if step.has_looked:
            self._stop.went_well(subject)
        keep_loop(*where, loop)
        self._count(step)
        yield from step.elements
        at.write(encode_position(step.position))
        self._poll_again(poll, step.pause_us, step.position.watermark_us)

    def _count(self, step: Step) -> None:
        at, where = step.position, f"{step.position.topic}:{step.position.partition}"
        metrics.count(metrics.RECORDS_READ, step.records)
        metrics.count(metrics.BYTES_READ, step.size)
        if step.lag is not None:
            metrics.show(metrics.KAFKA_LAG, where, step.lag)
        if at.watermark_us is not None:
            metrics.show(metrics.WATERMARK_MS, where, at.watermark_us // 1000)

    def _new_loop(self, position: PartitionPosition) -> PartitionLoop:
        assert self._admin is not None
        config = self._settings.consumer_config
        poller = PartitionPoller(config, self._admin, position.topic, position.partition)
        return PartitionLoop(poller, self._settings, self._now_us)

    def _poll_again(self, poll: Any, pause_us: int, watermark_us: int | None) -> None:
        hold = MIN_TIMESTAMP if watermark_us is None else Timestamp(micros=watermark_us)
        set_timer(poll, (self._now_us() + pause_us) / 1_000_000, hold)
