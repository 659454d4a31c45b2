"""Reads an exact range of offsets of one partition, without a line of Python per record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from transforms.model.collector import collector_paused
from transforms.model.elements import RawBlock
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.topic_generations import kafka_topic
from transforms.read.broker_errors import BrokerErrors, WaitLog
from transforms.read.consumer_settings import consumer_settings
from transforms.read.messages import block_of, offsets_of
from transforms.read.topic_identity import require_cluster, require_one_cluster

BATCH_RECORDS: Final = 100_000
"""Records per block.

So many that each shard gets some thousands of them, and the cost per Arrow batch is negligible.
"""

BATCH_BYTES: Final = 32 << 20
"""A block of large records ends earlier."""

CHUNK_RECORDS: Final = 5_000
"""Records of one `consume`: so few that they stay in the processor's cache until they are lists."""

_DEFAULTS: Final = {"fetch.wait.max.ms": "1", "queued.max.messages.kbytes": "4096"}
"""The broker answers the requests of a connection one after the other. A fetch at the end of a
range holds back the question which cluster it is, and the next range, by 10 ms with the value of
consumer_settings. A reader stands at an end for a moment only; what reads for ever would ask 500
times a second.

What is fetched behind the end of a range is fetched for nothing: with 64 MB a partition (the
default) four transactions cost a quarter more than one. Four fetches of 1 MB are enough to have one
ready.
"""

_POLL_SECONDS: Final = 0.2
_STOP_SECONDS: Final = 0.01
_STOP_POLLS: Final = 100
"""A second at most: a consumer that has not stopped by then is not worth more waiting.

Measured on an idle broker: 192 of 200 had stopped at once, the slowest took 6 ms.
"""
_ANSWER_SECONDS: Final = 5.0
_NO_ANSWER: Final = (
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
)
_ASK_AGAIN_SECONDS: Final = 15.0


@dataclass(frozen=True)
class PartitionRange:
    """What a bounded run reads of one partition: from_offset to to_offset (exclusive).

    topic: as the ledger names it, with its generation; so are the blocks that come of it.
    cluster_id: of the Kafka cluster that was planned; None where it is not known.
    """

    topic: str
    partition: int
    from_offset: int
    to_offset: int
    cluster_id: str | None = None

    def in_kafka(self, offset: int = OFFSET_INVALID) -> TopicPartition:
        """The partition, by its topic's name in Kafka, and an offset of it."""
        return TopicPartition(kafka_topic(self.topic), self.partition, offset)


class PartitionReader:
    """One consumer, kept across ranges, since it takes threads and connections.

    It may read another range once `is_ready_for` has said so.
    """

    def __init__(
        self, consumer_config: Mapping[str, str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: monotonic, in seconds."""
        self._clock = clock
        self._errors = BrokerErrors(consumer_config["bootstrap.servers"])
        settings = consumer_settings({**_DEFAULTS, **consumer_config}, self._errors)
        self._consumer = Consumer(settings)
        self.bytes_read = 0
        """Of the values in all ranges so far."""

    @property
    def can_read_again(self) -> bool:
        """Whether its client has reported no trouble at all, also none that has passed."""
        return not self._errors.has_heard

    def is_ready_for(self, wanted: PartitionRange) -> bool:
        """Whether nothing of an earlier range, and of the time since, can reach this one.

        librdkafka ends an assignment in a thread of its own, and until then position() is that of
        the old one: offsets up to there would pass as ones that hold no record. It makes the
        position invalid when it has stopped, and has outdated what is queued before that
        (rd_kafka_toppar_op_fetch_stop and rd_kafka_toppar_fetch_stopped of rdkafka_partition.c).
        What the client has reported meanwhile makes it unfit: that may be of another time.
        """
        for poll in range(_STOP_POLLS):
            if self._consumer.consume(1, _STOP_SECONDS if poll else 0) or not self.can_read_again:
                return False
            if self._consumer.position([wanted.in_kafka()])[0].offset == OFFSET_INVALID:
                return True
        return False

    def read(
        self, wanted: PartitionRange, batch_records: int = BATCH_RECORDS
    ) -> Iterator[RawBlock]:
        """The records of the range as blocks of at most `batch_records`, offsets rising.

        Ends when the consumer's position has reached to_offset: the last offsets may hold no record
        (transaction markers, aborted or compacted records). Then the broker has said once more
        which cluster it is. Waits for a broker that does not answer. Raises GuaranteeError for
        deleted offsets, refused credentials, a deleted topic, another cluster than the planned one.
        """
        if wanted.from_offset >= wanted.to_offset:
            return  # a consumer assigned at the end of a partition has no position
        self._consumer.assign([wanted.in_kafka(wanted.from_offset)])
        waiting = WaitLog(
            f"topic {wanted.topic} partition {wanted.partition}, offset {wanted.from_offset}"
        )
        next_offset, asked = wanted.from_offset, 0.0
        block, size = RawBlock(wanted.topic, wanted.partition), 0
        while next_offset < wanted.to_offset:
            room = min(
                batch_records - len(block.offsets), wanted.to_offset - next_offset, CHUNK_RECORDS
            )
            with collector_paused():
                chunk, next_offset = self._consume(wanted, next_offset, room)
            if next_offset >= wanted.to_offset:
                # Else the client asks for what is behind the range while its last block is worked
                # on, and the broker holds back each answer, and those behind it.
                self._consumer.unassign()
            block.extend(chunk)
            chunk_size = chunk.value_bytes()
            self.bytes_read += chunk_size
            size += chunk_size
            if block.offsets and (
                not chunk.offsets or len(block.offsets) >= batch_records or size >= BATCH_BYTES
            ):
                yield block
                block, size = RawBlock(wanted.topic, wanted.partition), 0
            elif not chunk.offsets and next_offset < wanted.to_offset:
                waited = waiting.waited(_POLL_SECONDS, self._errors.reason)
                if waited - asked >= _ASK_AGAIN_SECONDS:
                    asked = waited
                    self._still_there(wanted, next_offset)
            if chunk.offsets:
                waiting.reset()
                self._errors.reason = None
                asked = 0.0
        if block.offsets:
            yield block
        if wanted.cluster_id is not None:
            require_cluster(wanted.cluster_id, self._cluster_id(wanted))
            require_one_cluster(self._errors.led_elsewhere)

    def _consume(
        self, wanted: PartitionRange, next_offset: int, records: int
    ) -> tuple[RawBlock, int]:
        """At most `records` records, and the next offset to read.

        No record if none arrives within _POLL_SECONDS.
        """
        messages = self._consumer.consume(records, _POLL_SECONDS)
        self._errors.raise_if_final()
        if any(map(Message.error, messages)):
            messages = self._records_among(messages, wanted, next_offset)
        chunk = _block(messages, wanted)
        if len(chunk.offsets) < len(messages):
            return chunk, wanted.to_offset
        # After the last record there may be offsets that hold none; the consumer's position is
        # after those that it knows of.
        position = self._consumer.position([wanted.in_kafka()])[0].offset
        return chunk, max(position, chunk.offsets[-1] + 1 if chunk.offsets else next_offset)

    def close(self) -> None:
        """Closes the consumer."""
        self._consumer.close()

    def _records_among(
        self, messages: list[Message], wanted: PartitionRange, next_offset: int
    ) -> list[Message]:
        for message in messages:
            error = message.error()
            if error is None or error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                continue
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise lost_offsets(wanted, next_offset, str(error.str()))
            self._errors.remember(error)
            self._errors.raise_if_final()
            if not error.retriable():
                raise TryAgainLater(
                    f"topic {wanted.topic} partition {wanted.partition}: reading at offset"
                    f" {next_offset} failed ({error.str()}). Nothing of this run is visible; start"
                    " again, and look at the broker if it repeats."
                )
        return [message for message in messages if message.error() is None]

    def _cluster_id(self, wanted: PartitionRange) -> str | None:
        """Of the cluster of one of the brokers that this consumer is connected to, asked now."""
        name = kafka_topic(wanted.topic)
        waiting = WaitLog(f"topic {wanted.topic} partition {wanted.partition}, its cluster")
        asked = self._clock()
        while True:
            try:
                found: str | None = self._consumer.list_topics(name, _ANSWER_SECONDS).cluster_id
            except KafkaException as error:
                failed: KafkaError = error.args[0]
            else:
                # What the client has logged until then arrives.
                self._consumer.consume(1, 0)
                return found
            # Always a pause: where the broker drops connections, a request fails at once.
            self._consumer.consume(1, _POLL_SECONDS)
            self._errors.answered(failed)
            self._errors.raise_if_final()
            if failed.code() not in _NO_ANSWER:
                raise TryAgainLater(
                    f"topic {wanted.topic} partition {wanted.partition}: Kafka does not say which"
                    f" cluster it is ({failed.str()}). Nothing of this run is visible; start again,"
                    " and look at the broker if it repeats."
                )
            now = self._clock()
            waiting.waited(now - asked, self._errors.reason)
            asked = now

    def _still_there(self, wanted: PartitionRange, next_offset: int) -> None:
        """Raises GuaranteeError if the topic was deleted or truncated, asked after a long silence.

        A consumer with an assignment gets no error for either.
        """
        try:
            name = kafka_topic(wanted.topic)
            found = self._consumer.list_topics(name, timeout=5).topics[name]
            low, high = self._consumer.get_watermark_offsets(wanted.in_kafka(), timeout=5)
        except KafkaException as error:
            self._errors.answered(error.args[0])
            self._errors.raise_if_final()
            return
        if found.error is not None and found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise lost_offsets(wanted, next_offset, "the topic does not exist any more")
        if high < wanted.to_offset or low > next_offset:
            raise lost_offsets(
                wanted, next_offset, f"the log now holds offsets {low} to {high - 1}"
            )


def lost_offsets(wanted: PartitionRange, next_offset: int, reason: str) -> GuaranteeError:
    """The error for planned offsets that the broker does not have any more."""
    return GuaranteeError(
        f"topic {wanted.topic} partition {wanted.partition}: offsets from {next_offset} on, planned"
        f" up to {wanted.to_offset - 1}, cannot be read any more ({reason}). Nothing of this run is"
        " visible. Start again: it says what is lost, and how to go on."
    )


def _block(messages: list[Message], wanted: PartitionRange) -> RawBlock:
    offsets = offsets_of(messages)
    if offsets and offsets[-1] >= wanted.to_offset:
        kept = next(index for index, offset in enumerate(offsets) if offset >= wanted.to_offset)
        messages, offsets = messages[:kept], offsets[:kept]
    return block_of(messages, offsets, wanted.topic, wanted.partition)
