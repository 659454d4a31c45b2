"""Partitions that a topic has got, and topics that match a pattern, since the job began."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from transforms.model.topic_generations import kafka_topic
from transforms.read.broker_errors import BrokerErrors
from transforms.read.consumer_settings import consumer_settings
from transforms.read.position import PartitionPosition
from transforms.read.topic_identity import TopicUnknown, admin_client, ask_identity

_ANSWER_SECONDS: Final = 2.0


class NewPartitions:
    """Asks the broker. Picklable: its clients are made at the first question of a process."""

    def __init__(
        self,
        consumer_config: Mapping[str, str],
        record: Callable[[Sequence[PartitionPosition]], Sequence[PartitionPosition]],
        pattern: str | None = None,
    ) -> None:
        """record: writes down where new partitions begin, and returns where they do; picklable.

        pattern: a regular expression; topics whose whole name matches are read as well.
        """
        self._config = dict(consumer_config)
        self._record = record
        self._pattern = pattern
        self._clients: tuple[Consumer, AdminClient] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": None}

    def beyond(self, known: Mapping[str, int]) -> list[PartitionPosition]:
        """The partitions that are not known. known: topic of the ledger -> its known partitions.

        A new partition of a known topic begins at offset 0, what is deleted of it is a loss; a new
        topic begins with what it has. Neither judges a record late before it has a watermark of its
        own. Empty where the broker does not answer, or has just started and does not know the topic
        yet: those that read its partitions find out whether it was deleted. Raises what `record`
        raises.
        """
        consumer, admin = self._connected()
        try:
            topics = consumer.list_topics(timeout=_ANSWER_SECONDS).topics
        except KafkaException:
            return []
        pattern = re.compile(self._pattern) if self._pattern is not None else None
        names = {kafka_topic(topic): topic for topic in known}
        positions = []
        for topic, metadata in sorted(topics.items()):
            if topic not in names and not (pattern and pattern.fullmatch(topic)):
                continue
            name = names.get(topic, topic)
            new = range(known.get(name, 0), len(metadata.partitions))
            if metadata.error is not None or not new:
                continue
            positions += self._found(consumer, admin, name, new, is_known=topic in names)
        return list(self._record(positions)) if positions else []

    def _found(
        self, consumer: Consumer, admin: AdminClient, name: str, new: range, *, is_known: bool
    ) -> list[PartitionPosition]:
        """Where the new partitions of one topic begin. All or none.

        Those that are left for the next question would be the new ones of a known topic then.
        """
        topic = kafka_topic(name)
        try:
            identity = ask_identity(consumer, admin, topic, _ANSWER_SECONDS)
        except TopicUnknown:
            return []
        if identity is None:
            return []
        ids, found = (identity.topic_id, identity.cluster_id), []
        for number in new:
            begin = 0 if is_known else self._first(consumer, topic, number)
            if begin is None:
                return []
            found.append(PartitionPosition(name, number, *ids, begin, None, is_new=True))
        return found

    def _first(self, consumer: Consumer, topic: str, partition: int) -> int | None:
        """The first offset that the log holds; None without an answer."""
        try:
            where = TopicPartition(topic, partition)
            low, _ = consumer.get_watermark_offsets(where, timeout=_ANSWER_SECONDS)
        except KafkaException:
            return None
        return int(low)

    def close(self) -> None:
        """Closes the clients of this process."""
        if self._clients is not None:
            self._clients[0].close()
            self._clients = None

    def _connected(self) -> tuple[Consumer, AdminClient]:
        if self._clients is None:
            errors = BrokerErrors(self._config["bootstrap.servers"])
            consumer = Consumer(consumer_settings(self._config, errors))
            self._clients = consumer, admin_client(self._config)
        return self._clients
