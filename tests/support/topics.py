"""Topics of the shared broker: what is sent to them, and what the broker says of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from confluent_kafka import Producer

from pipeline.kafka_admin import KafkaAdmin, TopicState
from pipeline.options.consumer_config import ConsumerConfig
from tests.support.kafka_broker import KafkaBroker

QUIET = {"log_level": 0}

FreshTopic = Callable[..., str]


def send(
    broker: KafkaBroker,
    topic: str,
    values: list[bytes | None],
    key: bytes | None = None,
    **settings: str,
) -> None:
    producer = Producer({**QUIET, "bootstrap.servers": broker.bootstrap_servers, **settings})
    for value in values:
        producer.produce(topic, value, key, partition=0)
    assert producer.flush(30) == 0


def state_of(config: ConsumerConfig, topic: str) -> TopicState:
    with KafkaAdmin(config) as admin:
        return admin.topic_state(topic, 0)


def send_transactions(broker: KafkaBroker, topic: str, commits: Iterable[bool]) -> None:
    """Ten records and a marker each, committed or aborted."""
    producer = Producer(
        {**QUIET, "bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic}
    )
    producer.init_transactions(30)
    for is_committed in commits:
        producer.begin_transaction()
        for number in range(10):
            producer.produce(topic, b"%d" % number, partition=0)
        if is_committed:
            producer.commit_transaction(30)
        else:
            producer.flush(30)
            producer.abort_transaction(30)
