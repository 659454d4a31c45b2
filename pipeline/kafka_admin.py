"""What the driver asks the broker: cluster id, topic ids, partitions and their offsets.

Every answer is fresh; none is cached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import confluent_kafka
from confluent_kafka import Consumer, KafkaError, KafkaException

from pipeline.lag_report import LagReport, problem_of
from pipeline.options.config import EARLIEST, LATEST, Start
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.topic_generations import kafka_topic
from transforms.read.broker_errors import (
    BrokerErrors,
    WaitLog,
    denied,
    is_denied,
)
from transforms.read.consumer_settings import CONNECTION_DEFAULTS
from transforms.read.topic_identity import (
    admin_client,
    is_mock,
    require_one_cluster,
    topic_id_of,
)
from transforms.read.unreachable import NAMED_REASON_SECONDS, unreachable

_T = TypeVar("_T")

PATIENCE_SECONDS: Final = 60.0
"""How long brokers may be silent before a run starts. A run that reads waits without limit."""

_PASSING: Final = (
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.REQUEST_TIMED_OUT,
)
"""Of a broker while a leader changes. The client does not call all of them retriable."""

_REQUEST_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.5

_NO_ANSWER: Final = (
    KafkaError._TRANSPORT,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
"""No broker answers, or none is responsible for the group yet: worth another request."""


@dataclass(frozen=True)
class TopicState:
    """One topic as the broker described it.

    topic: as the ledger names it, with its generation.
    topic_id: Kafka's own id, None where the broker has none (librdkafka's mock cluster).
    partitions: number -> (first offset, end offset). The end is the last stable offset: records
    behind it may belong to an open transaction.
    asked_at_us: microseconds since 1970, before the request was sent, so never later than the
    answer.
    """

    topic: str
    topic_id: str | None
    partitions: Mapping[int, tuple[int, int]]
    asked_at_us: int


class KafkaAdmin:
    """A context manager around one consumer and one admin client."""

    def __init__(
        self,
        consumer_config: Mapping[str, str],
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """patience_seconds: how long a broker may not answer. clock: monotonic, in seconds."""
        self._clock = clock
        self._servers = consumer_config["bootstrap.servers"]
        self._patience = patience_seconds
        self._errors = BrokerErrors(self._servers)
        common: dict[str, Any] = {**consumer_config, "error_cb": self._errors.remember}
        fixed: dict[str, Any] = {
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "allow.auto.create.topics": False,
        }
        self._consumer = Consumer(
            {**CONNECTION_DEFAULTS, **self._errors.log.settings(common), **fixed}
        )
        self._admin = admin_client(common)
        group = consumer_config["group.id"]
        self._lag_report = LagReport(
            self._servers, self._consumer, lambda: self.group_problem(group)
        )

    def __enter__(self) -> KafkaAdmin:
        return self

    def __exit__(self, *error: object) -> None:
        self._consumer.close()

    def cluster_id(self) -> str | None:
        """Kafka's id of the cluster, which shows when --bootstrap_servers leads to another one.

        Raises GuaranteeError where this client has found brokers of more than one, ever.
        """
        found: str | None = self._ask(
            "the cluster", lambda seconds: self._consumer.list_topics(timeout=seconds).cluster_id
        )
        # What the client has logged until then arrives.
        self._consumer.poll(0)
        require_one_cluster(self._errors.led_elsewhere)
        return found

    def topics(self) -> list[str]:
        """The names of all topics that this user may see, sorted."""
        found = self._ask("the topics", lambda seconds: self._consumer.list_topics(timeout=seconds))
        return sorted(found.topics)

    def topic_id(self, topic: str) -> str | None:
        """Kafka's own id of the topic; None where the broker cannot tell.

        topic: any generation of it. Raises GuaranteeError for an unknown topic, or no answer in
        time.
        """
        name = kafka_topic(topic)
        self._metadata(name)
        return self._topic_id(name)

    def topic_state(self, topic: str, now_us: int) -> TopicState:
        """The topic's id, partitions and offsets. now_us: the present, microseconds since 1970.

        topic: any generation of it; the answer has the same name. Raises GuaranteeError for an
        unknown topic, refused credentials, or no answer in time.
        """
        name = kafka_topic(topic)
        metadata = self._metadata(name)
        topic_id = self._topic_id(name)
        offsets = {
            partition: self._offsets(name, partition) for partition in sorted(metadata.partitions)
        }
        return TopicState(topic, topic_id, offsets, now_us)

    def offsets_for_start(self, state: TopicState, start: Start) -> dict[int, int]:
        """Partition -> the offset where the first run begins.

        For a timestamp: the first record at or after it, or the end where there is none. Raises
        GuaranteeError where the broker cannot look up timestamps.
        """
        if start.kind == EARLIEST:
            return {partition: low for partition, (low, _) in state.partitions.items()}
        if start.kind == LATEST:
            return {partition: high for partition, (_, high) in state.partitions.items()}
        wanted = [
            confluent_kafka.TopicPartition(state.topic, partition, start.timestamp_ms)
            for partition in state.partitions
        ]
        found = self._ask(
            f"topic {state.topic}",
            lambda seconds: self._consumer.offsets_for_times(wanted, timeout=seconds),
        )
        if failed := next((part for part in found if part.error is not None), None):
            raise GuaranteeError(
                f"--start=timestamp: Kafka cannot look up topic {state.topic} partition"
                f" {failed.partition} ({failed.error})."
            )
        return {
            part.partition: part.offset if part.offset >= 0 else state.partitions[part.partition][1]
            for part in found
        }

    def group_problem(self, group: str) -> str | None:
        """Why offsets cannot be reported under this group; None where nothing is known against it.

        Asks for the rights on the group, and commits nothing.
        """
        if is_mock(self.cluster_id()):
            return None
        return self._ask(
            f"consumer group {group}", lambda seconds: problem_of(self._admin, group, seconds)
        )

    def commit_offsets(self, positions: Mapping[TopicPartition, int]) -> None:
        """Commits the group's offsets, for lag monitors: see LagReport."""
        self._lag_report.commit(positions)

    def _metadata(self, topic: str) -> Any:
        metadata = self._ask(
            f"topic {topic}",
            lambda seconds: self._consumer.list_topics(topic, timeout=seconds).topics[topic],
        )
        if metadata.error is not None:
            raise self._no_topic(topic, metadata.error)
        return metadata

    def _no_topic(self, topic: str, error: KafkaError) -> GuaranteeError:
        """What the broker says of a topic in place of its partitions."""
        if is_denied(error.code()):
            return denied(self._servers, error.code(), f"--topic={topic}: {error.str()}")
        if error.code() in _PASSING:
            return TryAgainLater(
                f"--topic={topic}: Kafka at {self._servers} cannot serve it now ({error.str()})."
                " Run again."
            )
        return GuaranteeError(
            f"--topic={topic}: Kafka at {self._servers} has no such topic that can be read"
            f" ({error.str()}). Create it, or correct the name; if it was deleted, what was not"
            " read of it is lost."
        )

    def _offsets(self, topic: str, partition: int) -> tuple[int, int]:
        where = confluent_kafka.TopicPartition(topic, partition)
        low, high = self._ask(
            f"topic {topic} partition {partition}",
            lambda seconds: self._consumer.get_watermark_offsets(where, timeout=seconds),
        )
        return low, high

    def _topic_id(self, topic: str) -> str | None:
        cluster_id = self.cluster_id()
        return self._ask(
            f"topic {topic}", lambda seconds: topic_id_of(self._admin, cluster_id, topic, seconds)
        )

    def _ask(self, what: str, request: Callable[[float], _T]) -> _T:
        """Repeats a request while the broker does not answer, at most `patience_seconds` long.

        Not so long where no broker is up and the client names the reason.
        """
        self._errors.reason = None
        waiting, asked = WaitLog(f"Kafka at {self._servers}, {what}"), self._clock()
        while True:
            try:
                found = request(_REQUEST_SECONDS)
            except KafkaException as error:
                failed: KafkaError = error.args[0]
            else:
                self._errors.works()
                return found
            # Always a pause: where the broker drops connections, a request fails at once.
            self._consumer.poll(_PAUSE_SECONDS)
            self._errors.answered(failed)
            self._errors.raise_if_final()
            if not (failed.retriable() or failed.code() in (*_PASSING, *_NO_ANSWER)):
                raise GuaranteeError(
                    f"Kafka at {self._servers}: {what} cannot be looked up ({failed.str()})."
                )
            now = self._clock()
            waited, asked = waiting.waited(now - asked, self._errors.reason), now
            no_broker_up = failed.code() == KafkaError._TRANSPORT and self._errors.reason
            if waited >= (NAMED_REASON_SECONDS if no_broker_up else self._patience):
                raise unreachable(self._servers, waited, self._errors.reason)
