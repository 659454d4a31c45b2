"""The consumer of one partition: what it says of where it stands belongs to one assignment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from transforms.model.errors import GuaranteeError
from transforms.read import partition_poller
from transforms.read.partition_poller import PartitionPoller
from transforms.read.topic_identity import TopicIdentity, TopicUnknown


class ConsumerThatIsSlow:
    """librdkafka takes a new assignment up in a thread of its own.

    Until then `position` is that of the assignment before.
    """

    made: list[ConsumerThatIsSlow]

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.next: list[Message] = []
        self.fails: KafkaException | None = None
        self.stands_at = OFFSET_INVALID
        self.closed = False
        self.made.append(self)

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        assert not self.closed

    def consume(self, _records: int, _seconds: float) -> list[Message]:
        got, self.next = self.next, []
        return got

    def get_watermark_offsets(self, _where: TopicPartition, timeout: float) -> tuple[int, int]:
        assert self.fails is not None
        raise self.fails

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


def test_nothing_is_taken_from_brokers_of_two_clusters(
    consumers: list[ConsumerThatIsSlow],
) -> None:
    """The ids are asked of any one of them, and not behind each poll."""
    admin: Any = None
    poller = PartitionPoller({"bootstrap.servers": "b", "group.id": "g"}, admin, "payments", 0)
    poller.assign(7)
    said = '[thrd:main]: Broker b:1/1 reports different ClusterId "another" than previously known'
    consumers[-1].settings["logger"].log(30, "%s %s %s", "CLUSTERID", "client", said)
    consumers[-1].next = [Message(topic="payments", partition=0, offset=7, value=b"of either")]
    with pytest.raises(GuaranteeError, match="more than one Kafka cluster"):
        poller.poll(10, 10, 0.0)


UNKNOWN = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
)


@pytest.mark.parametrize("code", UNKNOWN)
def test_a_broker_that_has_just_started_may_not_know_the_topic_yet(
    code: int, consumers: list[ConsumerThatIsSlow]
) -> None:
    """An error of a record or a question, or of the client: it must not end the job."""
    admin: Any = None
    poller = PartitionPoller({"bootstrap.servers": "b", "group.id": "g"}, admin, "payments", 0)
    poller.assign(7)
    consumer, error = consumers[-1], KafkaError(code)
    consumer.settings["error_cb"](error)
    consumer.fails = KafkaException(error)
    assert poller.ends() is None
    consumer.next = [Message(error=error)]
    assert poller.poll(10, 10, 0.0).block.offsets == []
    assert poller.next_offset is None, "the next poll begins with a look at the topic"


def test_a_topic_is_deleted_when_the_broker_does_not_know_it_for_long(
    consumers: list[ConsumerThatIsSlow], monkeypatch: pytest.MonkeyPatch
) -> None:
    admin: Any = None
    now = [0.0]
    poller = PartitionPoller(
        {"bootstrap.servers": "b", "group.id": "g"}, admin, "payments", 0, lambda: now[0]
    )
    known = TopicIdentity("cluster", "id")
    answers: list[TopicIdentity | None] = [None, known, None]

    def asked(*_: object) -> TopicIdentity | None:
        if answers and now[0] >= 59:
            return answers.pop()
        raise TopicUnknown("topic payments does not exist any more")

    monkeypatch.setattr(partition_poller, "ask_identity", asked)
    assert poller.identity() is None
    now[0] = 59
    assert [poller.identity() for _ in range(3)] == [None, known, None]
    now[0] = 61
    assert poller.identity() is None, "any other answer in between begins the time anew"
    now[0] = 120
    assert poller.identity() is None
    now[0] = 121
    another = PartitionPoller(
        {"bootstrap.servers": "b", "group.id": "g"}, admin, "payments", 1, lambda: now[0]
    )
    for each in (poller, another):
        with pytest.raises(GuaranteeError, match="does not exist any more"):
            each.identity()


def test_a_minute_of_not_knowing_a_topic_has_no_pauses(
    consumers: list[ConsumerThatIsSlow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no partition of it was read here meanwhile, the broker has not been asked: it may have
    known the topic all the time but for two starts.
    """
    admin: Any = None
    now = [0.0]
    poller = PartitionPoller(
        {"bootstrap.servers": "b", "group.id": "g"}, admin, "pauses", 0, lambda: now[0]
    )

    def asked(*_: object) -> TopicIdentity | None:
        raise TopicUnknown("topic pauses does not exist any more")

    monkeypatch.setattr(partition_poller, "ask_identity", asked)
    assert poller.identity() is None
    now[0] = 4000
    assert poller.identity() is None
    for now[0] in (4030, 4059):
        assert poller.identity() is None
    now[0] = 4060
    with pytest.raises(GuaranteeError, match="does not exist any more"):
        poller.identity()
