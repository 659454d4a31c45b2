"""What a broker says of a topic, by librdkafka's mock cluster, which knows no topic ids."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import Consumer

from transforms.read.topic_identity import TopicUnknown, ask_identity

_SECONDS = 10.0


def test_a_broker_without_topic_ids_says_too_that_a_topic_does_not_exist() -> None:
    """Else nothing would: a reader waits while the broker does not know the partition."""
    admin: Any = None
    consumer = Consumer({"bootstrap.servers": "b", "group.id": "g", "test.mock.num.brokers": 1})
    try:
        with pytest.raises(TopicUnknown, match="topic payments does not exist any more"):
            ask_identity(consumer, admin, "payments", _SECONDS)
    finally:
        consumer.close()
