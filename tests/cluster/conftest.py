"""The shared broker, and a streaming job on it and on the shared Flink cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.options.consumer_config import ConsumerConfig, load_consumer_config
from runners.flink.cluster import FlinkCluster
from tests.support.kafka_broker import KafkaBroker
from tests.support.payment_sender import PARTITIONS, Sender
from tests.support.streaming_command import StreamingCommand


@pytest.fixture
def config(kafka_broker: KafkaBroker) -> ConsumerConfig:
    """Of a consumer of the shared broker."""
    return load_consumer_config(None, kafka_broker.bootstrap_servers, None)


@pytest.fixture
def topic(fresh_topic: Callable[..., str]) -> str:
    return fresh_topic(partitions=PARTITIONS)


@pytest.fixture
def command(
    flink_cluster: FlinkCluster, kafka_broker: KafkaBroker, topic: str, tmp_path: Path
) -> Iterator[StreamingCommand]:
    running = StreamingCommand(flink_cluster, kafka_broker.bootstrap_servers, topic, tmp_path)
    yield running
    running.kill()


@pytest.fixture
def sender(kafka_broker: KafkaBroker, topic: str) -> Sender:
    return Sender(kafka_broker.bootstrap_servers, topic, PARTITIONS, seed=1)
