"""One real Kafka broker for all tests of a pytest process, and topics of their own on it."""

import os
import time
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from runners.java import Unavailable
from tests.support.kafka_broker import KafkaBroker, running_broker


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """Runs until the end of the session. Without Java or Maven its tests are skipped, or fail
    where CI is set.
    """
    try:
        with running_broker(tmp_path_factory.mktemp("kafka") / "broker") as broker:
            yield broker
    except Unavailable as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


@pytest.fixture
def fresh_topic(kafka_broker: KafkaBroker) -> Callable[..., str]:
    """Creates a topic with a name of its own: fresh_topic(partitions=3, **{"cleanup.policy":
    "compact"}).
    """
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap_servers})

    def create(partitions: int = 1, name: str | None = None, **config: str) -> str:
        topic = name or f"topic-{uuid.uuid4().hex[:12]}"
        settings = {"retention.ms": "-1", **config}
        admin.create_topics([NewTopic(topic, partitions, 1, config=settings)])[topic].result(30)
        # The controller has it; the broker that is asked for metadata learns of it a little later.
        for _ in range(200):
            if admin.list_topics(topic, timeout=10).topics[topic].error is None:
                return topic
            time.sleep(0.05)
        raise AssertionError(f"the broker does not know {topic}")

    return create


@pytest.fixture
def recreate_topic(
    kafka_broker: KafkaBroker, fresh_topic: Callable[..., str]
) -> Callable[..., None]:
    """Deletes a topic and creates another one of its name: recreate_topic(name, partitions=3)."""
    admin = AdminClient({"bootstrap.servers": kafka_broker.bootstrap_servers})

    def recreate(topic: str, partitions: int = 1) -> None:
        admin.delete_topics([topic])[topic].result(30)
        for _ in range(200):
            if topic not in admin.list_topics(timeout=10).topics:
                break
        fresh_topic(partitions=partitions, name=topic)

    return recreate
