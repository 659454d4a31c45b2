"""Generations of a topic: one name in Kafka, another one in each coordinate.

A topic that was created again, or goes on in another cluster, begins at offset 0 once more. Its
coordinates would repeat, so it goes on under another name in the ledger and in the tables: first
`payments`, then `payments#2`, `payments#3` and so on. Kafka has no `#` in a topic's name: letters,
digits, `.`, `_` and `-` only
(https://github.com/apache/kafka/blob/trunk/clients/src/main/java/org/apache/kafka/common/internals/Topic.java).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_SIGN: Final = "#"


def kafka_topic(topic: str) -> str:
    """The name in Kafka of any generation: `payments#2` -> `payments`."""
    return topic.partition(_SIGN)[0]


def generation_of(topic: str) -> int:
    """1 for `payments`, 2 for `payments#2`."""
    return int(topic.partition(_SIGN)[2] or 1)


def next_generation(topic: str) -> str:
    """The name of the generation behind this one: `payments` -> `payments#2`."""
    return f"{kafka_topic(topic)}{_SIGN}{generation_of(topic) + 1}"


def current_generations(topics: Iterable[str]) -> dict[str, str]:
    """Name in Kafka -> the highest of its generations among `topics`."""
    current: dict[str, str] = {}
    for topic in topics:
        name = kafka_topic(topic)
        current[name] = max(topic, current.get(name, topic), key=generation_of)
    return current
