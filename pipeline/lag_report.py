"""The offsets of the consumer group, which lag monitors look at.

They are information, never a position: that is in the ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError
from transforms.model.waiting import waiting_for

_LOG = logging.getLogger(__name__)

_UNKNOWN: Final = (
    KafkaError.GROUP_ID_NOT_FOUND,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.UNSUPPORTED_VERSION,
)
"""A group that no consumer has used yet, or a broker that cannot tell."""


def problem_of(admin: AdminClient, group: str, seconds: float) -> str | None:
    """Why this user cannot commit offsets of the group; None where nothing is known against it.

    seconds: how long to wait for an answer. Raises KafkaException.
    """
    described = admin.describe_consumer_groups(
        [group], include_authorized_operations=True, request_timeout=seconds
    )[group]
    try:
        allowed = described.result().authorized_operations
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return f"Kafka denies this user the consumer group {group}"
        if error.args[0].code() in _UNKNOWN:
            return None
        raise
    if allowed is None or "READ" in [operation.name for operation in allowed]:
        return None
    return f"Kafka lets this user look at the consumer group {group}, not use it"


class LagReport:
    """Commits offsets of the group that `consumer` belongs to.

    servers: for the lines of the log. problem: why that cannot be done, None where it can; it
    raises GuaranteeError where the broker does not say.
    """

    def __init__(self, servers: str, consumer: Consumer, problem: Callable[[], str | None]) -> None:
        self._servers = servers
        self._consumer = consumer
        self._problem = problem
        self._allowed: bool | None = None

    def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        """Topics have their names in Kafka. A failure is only logged.

        Whether the group may be used is asked first, once: librdkafka would wait for a coordinator
        for three quarters of a minute, after every transaction.
        """
        if self._allowed is None:
            self._allowed = self._is_allowed()
        if not self._allowed:
            return
        offsets = [
            confluent_kafka.TopicPartition(topic, partition, offset)
            for (topic, partition), offset in positions.items()
        ]
        try:
            with waiting_for(f"Kafka at {self._servers}: the group's offsets to be committed"):
                self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            _LOG.warning(
                "the group's offsets could not be committed to Kafka (%s); lag monitors show old"
                " ones, nothing else is affected",
                error,
            )

    def _is_allowed(self) -> bool:
        try:
            problem = self._problem()
        except GuaranteeError as error:
            problem = error.message
        if problem is not None:
            _LOG.warning(
                "%s; lag monitors do not see how far this run gets, nothing else is affected",
                problem,
            )
        return problem is None
