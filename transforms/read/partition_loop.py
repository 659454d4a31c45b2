"""One poll of one partition: what has arrived, which offsets hold nothing, and the watermark.

It knows no runner; read_loop.py calls it from a timer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import numpy as np

from transforms.model.coordinates import TopicPartition, int64s
from transforms.model.elements import (
    Covered,
    EmptyOffsets,
    JudgedArrivals,
    RawBlock,
    StreamBatch,
)
from transforms.model.errors import GuaranteeError
from transforms.model.tables import DELETED, NO_RECORD
from transforms.read.idle_watch import IdleWatch
from transforms.read.partition_poller import PartitionPoller, Polled
from transforms.read.position import PartitionPosition
from transforms.read.topic_identity import TopicIdentity, require_same

BATCH_RECORDS: Final = 50_000
"""Records of one poll. Java passes a timer's output on only when it ends, without a bound."""

BATCH_BYTES: Final = 16 << 20
SLICE_SECONDS: Final = 0.1
_BUSY_RECORDS: Final = 1_000
_PAUSE_US: Final = 50_000
_NO_ANSWER_PAUSE_US: Final = 1_000_000
_IDENTITY_EVERY_US: Final = 10_000_000
_SILENCE_US: Final = 200_000
"""A topic cannot be deleted, created again and filled within this time without a poll that reads
nothing, so after such a pause the ids are compared before a record goes on.
"""

_ASKING: Final = ThreadPoolExecutor(4, thread_name_prefix="topic ids")
"""Any thread may ask a consumer:
https://github.com/confluentinc/librdkafka/blob/master/INTRODUCTION.md#threads-and-callbacks
"""


class Judge(Protocol):
    """Decodes a block, judges it by the watermark of `position`, and splits it by shard.

    Picklable.
    """

    def __call__(
        self, block: RawBlock, covered: Covered, position: PartitionPosition, now_us: int
    ) -> JudgedArrivals:
        """covered: the offsets of the block, and those that hold no record. now_us: the clock."""


@dataclass(frozen=True)
class ReadSettings:
    """How partitions are read; durations in microseconds.

    job_id: consumers are kept per job. idle_timeout_us: None means never. accept_data_loss: deleted
    offsets become a gap; else they stop the job, unless all of them are in the tables.
    first_missing: (topic, partition) -> begin, and returns the first offset from there on that is
    in no table and no gap. Picklable.
    """

    consumer_config: Mapping[str, str]
    job_id: str
    dedup_horizon_us: int
    max_future_skew_us: int
    idle_timeout_us: int | None
    accept_data_loss: bool
    first_missing: Callable[[Mapping[TopicPartition, int]], Mapping[TopicPartition, int]]


@dataclass(frozen=True)
class Step:
    """position: after the poll. elements: for the shards. pause_us: until the next poll.

    has_looked: whether the broker has said that this is the topic, and that its log holds the
    position. records, size: read by it, in bytes. lag: records between the position and the end of
    the log, as the last answer of the broker had it; None where it is not known.
    """

    position: PartitionPosition
    elements: Sequence[tuple[int, StreamBatch]]
    pause_us: int
    has_looked: bool = False
    records: int = 0
    size: int = 0
    lag: int | None = None


class PartitionLoop:
    """What one process keeps of a partition between polls: the consumer, and the silence."""

    def __init__(
        self, poller: PartitionPoller, settings: ReadSettings, now_us: Callable[[], int]
    ) -> None:
        """now_us: the clock, microseconds since 1970."""
        self._poller = poller
        self._settings = settings
        self._now_us = now_us
        self._idle = IdleWatch(settings.idle_timeout_us)
        self._same_at_us: int | None = None
        self._read_at_us = 0

    def step(self, position: PartitionPosition, judge: Judge) -> Step:
        """Reads what has arrived at `position`.

        Raises GuaranteeError for lost offsets and another topic, TryAgainLater where the client
        must be started again.
        """
        waiting = Step(position, (), _NO_ANSWER_PAUSE_US)
        read_from = position.offset
        if self._poller.next_offset != position.offset:
            begin = self._begin(position)
            if begin is None:
                return waiting
            self._poller.assign(begin)
            # Another attempt of the job may have read payments since this loop was kept.
            self._idle = IdleWatch(self._settings.idle_timeout_us)
            read_from = begin
        polled = self._poller.poll(BATCH_RECORDS, BATCH_BYTES, SLICE_SECONDS)
        now_us = self._now_us()
        block = polled.block
        after = self._poller.next_offset
        if after is None:
            after = block.offsets[-1] + 1 if block.offsets else read_from
            # The broker may have answered between two records of this poll, and those behind its
            # answer may be of a topic that was created again.
            self._same_at_us = None
        goes_on = after > position.offset
        judged = JudgedArrivals((), None)
        # The broker answers while the records are judged.
        fresh = self._is_fresh(now_us, before_records=goes_on)
        asked = None if fresh else _ASKING.submit(self._poller.identity)
        try:
            if goes_on:
                covered = _covered(position, read_from, after, block)
                judged = judge(block, covered, position, now_us)
        finally:
            # That it is another topic is told in place of an error about its records.
            same = asked is None or self._is_same(position, asked.result(), now_us)
        if goes_on and not same:
            # What was read is not passed on; the next poll begins here again.
            self._poller.next_offset = None
            return waiting
        epoch = _leader_epoch(position, polled)
        if goes_on:
            self._read_at_us = now_us
        watermark = self._watermark(position.watermark_us, judged.newest_us, after)
        moved = msgspec.structs.replace(
            position, offset=after, watermark_us=watermark, leader_epoch=epoch
        )
        busy = len(block.offsets) >= _BUSY_RECORDS
        pause_us = 0 if busy else _PAUSE_US
        end = self._poller.known_end()
        lag = None if end is None else max(0, end - after)
        return Step(moved, judged.elements, pause_us, True, len(block.offsets), polled.size, lag)

    def close(self) -> None:
        """Closes the consumer."""
        self._poller.close()

    def _begin(self, position: PartitionPosition) -> int | None:
        """Where to read from; None: the broker does not answer.

        Raises GuaranteeError where the log has lost offsets, or is another one.
        """
        now_us = self._now_us()
        self._same_at_us = None
        if not self._is_same(position, self._poller.identity(), now_us):
            return None
        ends = self._poller.ends()
        if ends is None:
            return None
        low, high = ends
        topic, partition, offset = position.topic, position.partition, position.offset
        if offset > high:
            raise GuaranteeError(
                f"topic {topic} partition {partition}: the next offset to read is {offset}, but the"
                f" log ends at {high}: records that were read are not in Kafka any more (the log"
                " was truncated), and their offsets would repeat."
            )
        if offset >= low:
            return offset
        if not self._settings.accept_data_loss:
            where = topic, partition
            missing = self._settings.first_missing({where: offset})[where]
            if missing < low:
                raise GuaranteeError(
                    f"topic {topic} partition {partition}: offsets {missing} to {low - 1} were"
                    " deleted before all of them were read. --on_data_loss=fail is in force;"
                    f" --on_data_loss=accept goes on at {low} and writes the loss to offset_gaps."
                )
        return low

    def _is_fresh(self, now_us: int, *, before_records: bool) -> bool:
        """Whether the ids need not be asked for: no recreated topic could have gone unnoticed.

        before_records: whether something was read, and is to go on.
        """
        # A clock that was set back makes neither of them fresh.
        same_at_us = self._same_at_us
        fresh = same_at_us is not None and 0 <= now_us - same_at_us < _IDENTITY_EVERY_US
        return fresh and (not before_records or 0 <= now_us - self._read_at_us < _SILENCE_US)

    def _is_same(
        self, position: PartitionPosition, found: TopicIdentity | None, now_us: int
    ) -> bool:
        """Whether the ids are known to be those of the position. Raises GuaranteeError where they
        are others.
        """
        if found is None:
            return False
        require_same(position, found)
        self._same_at_us = now_us
        return True

    def _watermark(self, before: int | None, newest_us: int | None, offset: int) -> int | None:
        """The highest event time minus the horizon, or what silence allows; never goes back."""
        if newest_us is not None:
            self._idle.payment_came()
            return _later(before, newest_us - self._settings.dedup_horizon_us)
        asked_at_us = self._now_us()
        if self._idle.wants_answer(asked_at_us):
            ends = self._poller.ends()
            if ends is None:
                self._idle.no_answer(asked_at_us)
            else:
                self._idle.answered(ends[1], asked_at_us)
        moment_us = self._idle.no_payment_until(offset)
        if moment_us is None:
            return before
        return _later(before, moment_us - self._settings.dedup_horizon_us)


def _later(mark: int | None, micros: int) -> int:
    """The later of both, in whole milliseconds: that is how watermarks travel."""
    floored = micros // 1000 * 1000
    return floored if mark is None else max(mark, floored)


def _leader_epoch(position: PartitionPosition, polled: Polled) -> int | None:
    """The leader epoch of the last record. Raises GuaranteeError when it has fallen back."""
    epoch = position.leader_epoch
    for found in polled.leader_epochs:
        if epoch is not None and found < epoch:
            raise GuaranteeError(
                f"topic {position.topic} partition {position.partition}: the leader epoch falls"
                f" from {epoch} to {found} at offset {polled.block.offsets[0]}: this is another"
                " log under the same name (the topic was created again, or the broker lost its"
                " disk), so its offsets would repeat."
            )
        epoch = found
    return epoch


def _covered(position: PartitionPosition, read_from: int, after: int, block: RawBlock) -> Covered:
    """The offsets from the position to `after`, with those that hold no record.

    Raises RuntimeError for offsets that do not rise.
    """
    offsets = int64s(block.offsets)
    before = np.concatenate([[read_from - 1], offsets])
    following = np.concatenate([offsets, [after]])
    if (following <= before).any():
        raise RuntimeError(
            f"{position.topic}:{position.partition}: the consumer delivered offsets that do not"
            f" rise, from {read_from} to {after}"
        )
    gaps = [
        EmptyOffsets(int(before[index]) + 1, int(following[index]) - 1, NO_RECORD)
        for index in np.flatnonzero(following - before > 1)
    ]
    if read_from > position.offset:
        gaps.insert(0, EmptyOffsets(position.offset, read_from - 1, DELETED))
    where = position.topic, position.topic_id, position.partition
    return Covered(*where, position.offset, after - 1, gaps)
