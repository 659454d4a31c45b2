"""A client that finds brokers of two Kafka clusters: a name in --bootstrap_servers has moved."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer

from pipeline.kafka_admin import KafkaAdmin
from transforms.model.errors import GuaranteeError


def test_what_the_broker_says_of_two_clusters_is_not_believed() -> None:
    """librdkafka itself: the cluster that it was connected to ends, and the other one answers."""
    clusters, servers = {}, []
    for _ in range(2):
        producer = Producer({"bootstrap.servers": "b", "test.mock.num.brokers": 1, "log_level": 2})
        metadata = producer.list_topics(timeout=10)
        clusters[metadata.cluster_id] = producer
        servers += [f"{broker.host}:{broker.port}" for broker in metadata.brokers.values()]
    del producer
    with KafkaAdmin({"bootstrap.servers": ",".join(servers), "group.id": "g"}) as admin:
        first = admin.cluster_id()
        assert first == admin.cluster_id()
        del clusters[first]
        with pytest.raises(GuaranteeError, match=r"more than one Kafka cluster .*mockCluster"):
            admin.cluster_id()
