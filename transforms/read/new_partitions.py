"""Partitions that a topic has got, and topics that match a pattern, since the job began."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from transforms.read.broker_errors import BrokerErrors
from transforms.read.partition_reader import consumer_settings
from transforms.read.position import PartitionPosition
from transforms.read.topic_identity import admin_client, ask_identity

_ANSWER_SECONDS: Final = 2.0


class NewPartitions:
    """Asks the broker. Picklable: its clients are made at the first question of a process."""

    def __init__(self, consumer_config: Mapping[str, str], pattern: str | None = None) -> None:
        """pattern: a regular expression; topics whose whole name matches are read as well."""
        self._config = dict(consumer_config)
        self._pattern = pattern
        self._clients: tuple[Consumer, AdminClient] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_clients": None}

    def beyond(self, known: Mapping[str, int]) -> list[PartitionPosition]:
        """The partitions that are not known. known: topic -> number of its known partitions.

        A new partition begins at offset 0, and judges nothing late before it has a watermark of its
        own. Empty where the broker does not answer. Raises GuaranteeError for a topic that does not
        exist any more.
        """
        consumer, admin = self._connected()
        try:
            found = consumer.list_topics(timeout=_ANSWER_SECONDS).topics
        except KafkaException:
            return []
        pattern = re.compile(self._pattern) if self._pattern is not None else None
        positions = []
        for topic, metadata in sorted(found.items()):
            if topic not in known and not (pattern and pattern.fullmatch(topic)):
                continue
            new = range(known.get(topic, 0), len(metadata.partitions))
            if metadata.error is not None or not new:
                continue
            identity = ask_identity(consumer, admin, topic, _ANSWER_SECONDS)
            if identity is None:
                continue
            positions += [
                PartitionPosition(
                    topic, number, identity.topic_id, identity.cluster_id, 0, None, is_new=True
                )
                for number in new
            ]
        return positions

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
