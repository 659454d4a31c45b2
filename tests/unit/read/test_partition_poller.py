"""The consumer of one partition: what it says of where it stands belongs to one assignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, TopicPartition

from transforms.read import partition_poller
from transforms.read.partition_poller import PartitionPoller


class ConsumerThatIsSlow:
    """librdkafka takes a new assignment up in a thread of its own.

    Until then `position` is that of the assignment before.
    """

    made: list[ConsumerThatIsSlow]

    def __init__(self, _settings: object) -> None:
        self.stands_at = OFFSET_INVALID
        self.closed = False
        self.made.append(self)

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        assert not self.closed

    def consume(self, _records: int, _seconds: float) -> list[Any]:
        return []

    def position(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        assert not self.closed
        return [TopicPartition(each.topic, each.partition, self.stands_at) for each in partitions]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> list[ConsumerThatIsSlow]:
    ConsumerThatIsSlow.made = []
    monkeypatch.setattr(partition_poller, "Consumer", ConsumerThatIsSlow)
    return ConsumerThatIsSlow.made


def test_where_the_assignment_before_stood_is_no_position_of_a_new_one(
    consumers: list[ConsumerThatIsSlow],
) -> None:
    """Else the offsets between the two would be gaps: payments that no step has seen."""
    admin: Any = None
    poller = PartitionPoller({"bootstrap.servers": "b", "group.id": "g"}, admin, "payments", 0)
    poller.assign(0)
    consumers[-1].stands_at = 1000
    poller.poll(10, 10, 0.0)
    assert poller.next_offset == 1000
    poller.assign(500)
    poller.poll(10, 10, 0.0)
    assert poller.next_offset == 500
    poller.close()
    assert all(consumer.closed for consumer in consumers)
