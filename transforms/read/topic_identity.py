"""Which topic of which cluster the broker serves under a name.

A consumer goes on at its old offset in a topic that was deleted and created again, without any
error, and skips records. Only the ids show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from transforms.model.errors import GuaranteeError
from transforms.model.topic_generations import kafka_topic
from transforms.read.consumer_settings import CONNECTION_DEFAULTS
from transforms.read.position import PartitionPosition

_MOCK_CLUSTER: Final = "mockCluster"

_CANNOT_TELL: Final = (KafkaError._UNSUPPORTED_FEATURE, KafkaError.UNSUPPORTED_VERSION)


class TopicUnknown(GuaranteeError):
    """The broker says that there is no such topic."""


@dataclass(frozen=True)
class TopicIdentity:
    """Kafka's ids of cluster and topic; None where the broker has none."""

    cluster_id: str | None
    topic_id: str | None


def admin_client(consumer_config: Mapping[str, Any]) -> AdminClient:
    """A client for `ask_identity`, with the connection settings of a consumer."""
    settings = {key: value for key, value in consumer_config.items() if key != "group.id"}
    return AdminClient({"log_level": 2, **CONNECTION_DEFAULTS, **settings})


def is_mock(cluster_id: str | None) -> bool:
    """Whether it is librdkafka's mock cluster, which never answers requests of an AdminClient."""
    return (cluster_id or "").startswith(_MOCK_CLUSTER)


def topic_id_of(
    admin: AdminClient, cluster_id: str | None, topic: str, seconds: float
) -> str | None:
    """Kafka's id of the topic; None where the broker has none. Raises KafkaException.

    seconds: how long the broker may take to answer.
    """
    if is_mock(cluster_id):
        return None
    described = admin.describe_topics(TopicCollection([topic]), request_timeout=seconds)
    try:
        return str(described[topic].result().topic_id)
    except KafkaException as error:
        if error.args[0].code() in _CANNOT_TELL:
            return None
        raise


def ask_identity(
    consumer: Consumer, admin: AdminClient, topic: str, seconds: float
) -> TopicIdentity | None:
    """What the broker says now; None where it does not answer within `seconds`.

    Raises TopicUnknown where it says that there is no such topic.
    """
    try:
        metadata = consumer.list_topics(topic, timeout=seconds)
        found = topic_id_of(admin, metadata.cluster_id, topic, seconds)
        error = metadata.topics[topic].error
        if found is None and error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            # Of a broker without topic ids only its metadata tell.
            raise KafkaException(error)
        return TopicIdentity(metadata.cluster_id, found)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicUnknown(
                f"topic {topic} does not exist any more; what was not read of it is lost. Start"
                " again with the topics that exist."
            ) from error
        return None


def require_cluster(planned: str, found: str | None) -> None:
    """Raises GuaranteeError where a run has read from another Kafka cluster than the planned one.

    planned, found: Kafka's ids; None where the broker tells none.
    """
    if found != planned:
        raise GuaranteeError(
            f"while it was read, --bootstrap_servers came to lead to the Kafka cluster {found};"
            f" {planned} was planned. Nothing of this run is visible. Run again with the servers of"
            " that cluster."
        )


def require_one_cluster(led_elsewhere: str | None) -> None:
    """Raises GuaranteeError where a client has found brokers of more than one Kafka cluster.

    It asks any one of them for the cluster's id, and may have its other answers, and its records,
    from another one. led_elsewhere: what it has said of them, see BrokerErrors.
    """
    if led_elsewhere is not None:
        raise GuaranteeError(
            "--bootstrap_servers leads to brokers of more than one Kafka cluster"
            f" ({led_elsewhere}). What is committed stays correct, and nothing else is visible."
            " Start again with the servers of one cluster alone."
        )


def require_same(position: PartitionPosition, found: TopicIdentity) -> None:
    """Raises GuaranteeError where the position belongs to another topic or cluster."""
    before = TopicIdentity(position.cluster_id, position.topic_id)
    if before.cluster_id is not None and found.cluster_id != before.cluster_id:
        raise GuaranteeError(
            f"--bootstrap_servers leads to the Kafka cluster {found.cluster_id}, but topic"
            f" {position.topic} was read from {before.cluster_id}: its positions mean nothing"
            " there. Use the servers of that cluster."
        )
    if before.topic_id is not None and found.topic_id != before.topic_id:
        now = f"the id {found.topic_id}" if found.topic_id else "none"
        raise GuaranteeError(
            f"topic {position.topic} was read with the id {before.topic_id}, but it now has {now}:"
            " it was deleted and created again, so its offsets would repeat."
            f" {way_on(position.topic, found.topic_id)}"
        )


def way_on(topic: str, topic_id: str | None) -> str:
    """What to do about a topic that was created again while a job runs, as the end of an error.

    topic: its name in the ledger. topic_id: of the new one, None where the broker tells none. Where
    the ledger knows that id already, the command is refused, and prints the flag that it needs.
    """
    otherwise = "use a new topic name, or a new destination."
    if topic_id is None:
        return otherwise.capitalize()
    flag = f"--adopt_topic={kafka_topic(topic)}@{topic_id}"
    return (
        f"`run --streaming --from_tables {flag} --on_data_loss=accept` goes on with the new one"
        f" from its beginning, and gives up what was not read of the old one. Or: {otherwise}"
    )
