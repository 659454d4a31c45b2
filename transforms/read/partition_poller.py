"""Reads one partition without an end: what has arrived, a little at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient

from transforms.model.collector import collector_paused
from transforms.model.elements import RawBlock
from transforms.model.errors import TryAgainLater
from transforms.model.topic_generations import kafka_topic
from transforms.read.broker_errors import UNKNOWN_TOPIC, BrokerErrors, WaitLog
from transforms.read.consumer_settings import consumer_settings
from transforms.read.messages import block_of, offsets_of
from transforms.read.partition_reader import CHUNK_RECORDS
from transforms.read.topic_identity import (
    TopicIdentity,
    TopicUnknown,
    ask_identity,
    require_one_cluster,
)

_CONSUME_SECONDS: Final = 0.002
_ANSWER_SECONDS: Final = 2.0
_LOST: Final = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
_UNKNOWN_SECONDS: Final = 60.0
"""A broker that has just started may not know its topics yet, or not the partitions of one."""

_UNKNOWN: Final[dict[tuple[str, str], tuple[float, float]]] = {}
"""(servers, topic) -> when this process has heard so first, and last; all partitions of a topic
count. Each by a clock of its own would end one attempt of the job after the other.
"""


@dataclass(frozen=True)
class Polled:
    """What one poll has read. size: of the values, in bytes.

    leader_epochs: of some of the records, in order, where the broker tells them. They never fall
    within one log (https://cwiki.apache.org/confluence/display/KAFKA/KIP-101+-+Alter+Replication+Protocol+to+use+Leader+Epoch+rather+than+High+Watermark+for+Truncation).
    """

    block: RawBlock
    leader_epochs: tuple[int, ...]
    size: int = 0


class PartitionPoller:
    """One consumer for one partition, kept between polls: it takes a thread and a connection.

    next_offset: what `poll` reads next; None before `assign`, and after the broker has said that it
    does not have that offset, or the topic.
    """

    def __init__(
        self,
        consumer_config: Mapping[str, str],
        admin: AdminClient,
        topic: str,
        partition: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """topic: its name in the ledger. clock: monotonic, in seconds."""
        self._topic, self._partition = topic, partition
        self._where = kafka_topic(topic), partition
        self._admin, self._clock = admin, clock
        self._config = dict(consumer_config)
        self._errors = BrokerErrors(consumer_config["bootstrap.servers"], waits_for_topics=True)
        self._consumer = self._new_consumer()
        self._is_assigned = False
        self._waiting = WaitLog(f"topic {topic} partition {partition}: the broker")
        self.next_offset: int | None = None

    def assign(self, offset: int) -> None:
        """Begins at `offset`, which the log must hold, or be about to.

        Each assignment has a consumer of its own. librdkafka takes an assignment up in a thread of
        its own, and until then position() is that of the one before: where that one had come
        further, the offsets between would pass as ones that hold no record.
        """
        if self._is_assigned:
            self._consumer.close()
            self._consumer = self._new_consumer()
        self._is_assigned = True
        self._consumer.assign([TopicPartition(*self._where, offset)])
        self.next_offset = offset

    def poll(self, records: int, size: int, seconds: float) -> Polled:
        """What has arrived: at most `records`, some `size` bytes, and not longer than `seconds`.

        Moves next_offset behind it, and over offsets that hold no record. Raises GuaranteeError for
        refused credentials, and for brokers of more than one cluster; TryAgainLater where the
        client must be started again.
        """
        block = RawBlock(self._topic, self._partition)
        got: list[Message] = []
        epochs: list[int | None] = []
        started, taken = self._clock(), 0
        with collector_paused():
            while len(block.offsets) < records and taken < size:
                room = min(CHUNK_RECORDS, records - len(block.offsets))
                got = self._consumer.consume(room, _CONSUME_SECONDS)
                self._errors.raise_if_final()
                require_one_cluster(self._errors.led_elsewhere)
                if any(map(Message.error, got)):
                    got = self._records_among(got)
                chunk = block_of(got, offsets_of(got), self._topic, self._partition)
                block.extend(chunk)
                taken += chunk.value_bytes()
                epochs += [message.leader_epoch() for message in (got[:1] + got[-1:])]
                if not got or self._clock() - started >= seconds:
                    break
            # What is left for the collector are lists of numbers and bytes.
            del got
        if block.offsets:
            self._errors.reason = None
        if self.next_offset is not None:
            where = TopicPartition(*self._where)
            position = self._consumer.position([where])[0].offset
            behind = block.offsets[-1] + 1 if block.offsets else self.next_offset
            self.next_offset = max(position, behind)
        return Polled(block, tuple(epoch for epoch in epochs if epoch is not None), taken)

    def ends(self) -> tuple[int, int] | None:
        """The first offset of the log and its end, asked for now; None without an answer.

        The end is the last stable offset: what is behind it may belong to an open transaction.
        """
        where = TopicPartition(*self._where)
        asked = self._clock()
        try:
            low, high = self._consumer.get_watermark_offsets(where, timeout=_ANSWER_SECONDS)
        except KafkaException as error:
            self._errors.answered(error.args[0])
            self._errors.raise_if_final()
            self._waiting.waited(self._clock() - asked, self._errors.reason)
            return None
        self._waiting.reset()
        return low, high

    def known_end(self) -> int | None:
        """The end of the log as the last fetch has seen it, without a request."""
        where = TopicPartition(*self._where)
        _, high = self._consumer.get_watermark_offsets(where, cached=True)
        return int(high) if high >= 0 else None

    def identity(self) -> TopicIdentity | None:
        """The ids of topic and cluster, asked for now; None without an answer.

        Raises GuaranteeError where the broker has said for a minute, and nothing else in between,
        that there is no such topic; None until then. A minute without a question proves nothing:
        no partition of the topic may have been read here.
        """
        topic = self._config["bootstrap.servers"], self._where[0]
        try:
            found = ask_identity(self._consumer, self._admin, self._where[0], _ANSWER_SECONDS)
        except TopicUnknown:
            now = self._clock()
            first, last = _UNKNOWN.get(topic, (now, now))
            first = first if now - last < _UNKNOWN_SECONDS else now
            _UNKNOWN[topic] = first, now
            if now - first >= _UNKNOWN_SECONDS:
                raise
            return None
        _UNKNOWN.pop(topic, None)
        return found

    def close(self) -> None:
        """Closes the consumer."""
        self._consumer.close()

    def _new_consumer(self) -> Consumer:
        return Consumer(consumer_settings(self._config, self._errors))

    def _records_among(self, messages: list[Message]) -> list[Message]:
        """The messages that are records. Raises TryAgainLater for an error that stays."""
        for message in messages:
            error = message.error()
            if error is None or error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
                continue
            if error.code() in (*_LOST, *UNKNOWN_TOPIC):
                self.next_offset = None
                continue
            self._errors.remember(error)
            self._errors.raise_if_final()
            if not error.retriable():
                raise TryAgainLater(
                    f"topic {self._topic} partition {self._partition}: reading failed"
                    f" ({error.str()}). Look at the broker if it repeats."
                )
        return [message for message in messages if message.error() is None]
