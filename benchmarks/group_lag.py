"""How many messages of a topic no committed transaction has read yet, as a lag monitor sees it."""

from __future__ import annotations

from confluent_kafka import Consumer, TopicPartition

from benchmarks.direct_run import PARTITIONS
from pipeline.options.consumer_config import DEFAULT_GROUP

_ANSWER_SECONDS = 30.0


class GroupLag:
    """Of the group that `run` reports to where it is not told otherwise."""

    def __init__(self, servers: str, topic: str) -> None:
        settings = {"bootstrap.servers": servers, "group.id": DEFAULT_GROUP}
        self._consumer = Consumer({**settings, "enable.auto.commit": False})
        self._places = [TopicPartition(topic, number) for number in range(PARTITIONS)]

    def now(self) -> int:
        """Up to what the broker has at this moment."""
        ends = [
            self._consumer.get_watermark_offsets(place, _ANSWER_SECONDS)[1]
            for place in self._places
        ]
        committed = self._consumer.committed(self._places, _ANSWER_SECONDS)
        # A negative offset stands for none.
        return sum(ends) - sum(max(0, place.offset) for place in committed)

    def close(self) -> None:
        """Ends the connection."""
        self._consumer.close()
