"""What refuses the second run of a destination whose first has read topic `payments`.

Each entry changes the broker, and returns what to change in the configuration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.options.config import AdoptTopic
from tests.support.in_memory_kafka import MINUTE_US, InMemoryKafka, Partition, payment


def deleted(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.send("payments", 0, payment("b"), payment("c"))
    kafka.topics["payments"].partitions[0].deleted = 2
    return {}


def recreated(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.create("payments", 1, topic_id="another")
    return {}


def recreated_and_not_accepted(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.create("payments", 1, topic_id="another")
    return {"adopt_topics": (AdoptTopic("payments", "another"),)}


def recreated_with_another_id(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.create("payments", 1, topic_id="another")
    return {"adopt_topics": (AdoptTopic("payments", "third"),), "on_data_loss": "accept"}


def truncated(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.topics["payments"].partitions[0].records.clear()
    return {}


def vanished(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.topics["payments"].partitions.clear()
    return {}


def moved(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.cluster = "cluster-2"
    return {}


def lost_in_a_new_partition(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.topics["payments"].partitions.append(Partition(deleted=1))
    kafka.send("payments", 1, payment("b"), payment("c"))
    return {}


Refusal = Callable[[InMemoryKafka], dict[str, Any]]

REFUSALS: dict[str, Refusal] = {
    "deleted offsets": deleted,
    "recreated topic": recreated,
    "an adoption whose loss is not accepted": recreated_and_not_accepted,
    "an adoption of another topic": recreated_with_another_id,
    "truncated log": truncated,
    "vanished partition": vanished,
    "other cluster": moved,
    "a new partition's first offsets": lost_in_a_new_partition,
    "unknown topic": lambda _: {"topics": ("payments", "none")},
    "a coordinate that is not read": lambda _: {"reject_records": {("payments", 0): (99,)}},
    "a shorter horizon": lambda _: {"dedup_horizon_us": MINUTE_US},
}
