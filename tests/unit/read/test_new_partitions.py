"""Partitions that are read although the checkpoint, or the begin of the job, had none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from apache_beam.utils.timestamp import Timestamp
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from transforms.model.errors import GuaranteeError
from transforms.read import new_partitions
from transforms.read.feed import DiscoverPartitions
from transforms.read.new_partitions import NewPartitions
from transforms.read.position import PartitionPosition, decode_position
from transforms.read.topic_identity import TopicIdentity, TopicUnknown


class Topic:
    """What Kafka's metadata say of a topic."""

    error = None

    def __init__(self, partitions: int) -> None:
        self.partitions = dict.fromkeys(range(partitions))


class Broker:
    """topics: name -> partitions. silent: partitions of which it does not tell the first offset.
    deleted: topics that end between two questions. All logs begin at offset 7.
    """

    def __init__(self, topics: dict[str, int]) -> None:
        self.topics_there = topics
        self.silent: set[int] = set()
        self.deleted: set[str] = set()

    def list_topics(self, timeout: float) -> Any:
        topics = {name: Topic(count) for name, count in self.topics_there.items()}
        return SimpleNamespace(topics=topics)

    def get_watermark_offsets(self, where: TopicPartition, timeout: float) -> tuple[int, int]:
        if where.partition in self.silent:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return 7, 9

    def identity(self, _consumer: Any, _admin: Any, topic: str, _seconds: float) -> TopicIdentity:
        if topic in self.deleted:
            raise TopicUnknown(f"topic {topic} does not exist any more")
        return TopicIdentity("cluster", f"id of {topic}")


class Cell:
    """A state cell."""

    def __init__(self) -> None:
        self.value: bytes | None = None

    def read(self) -> bytes | None:
        return self.value

    def write(self, value: bytes) -> None:
        self.value = value


class Timer:
    """A timer that is set, and is fired by hand. _input_timestamp: what it holds the output at."""

    _input_timestamp: Timestamp

    def set(self, _moment: object) -> None: ...


class Watched:
    """What a step tells of its errors."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.well: list[str] = []

    @contextmanager
    def watching(self, subject: str) -> Iterator[None]:
        try:
            yield
        except GuaranteeError:
            self.failed.append(subject)
            raise

    def went_well(self, subject: str) -> None:
        self.well.append(subject)


def as_found(positions: Sequence[PartitionPosition]) -> Sequence[PartitionPosition]:
    return positions


def asking(
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    pattern: str | None = None,
    record: Callable[[Sequence[PartitionPosition]], Sequence[PartitionPosition]] = as_found,
) -> NewPartitions:
    monkeypatch.setattr(new_partitions, "ask_identity", broker.identity)
    new = NewPartitions({"bootstrap.servers": "b"}, record, pattern)
    clients: Any = broker, None
    new._clients = clients
    return new


def begin(topic: str, partition: int, offset: int) -> PartitionPosition:
    return PartitionPosition(topic, partition, f"id of {topic}", "cluster", offset, 1_000_000)


def emitted(found: Any) -> list[tuple[str, int, int]]:
    positions = [decode_position(encoded) for _, encoded in found]
    return [(each.topic, each.partition, each.offset) for each in positions]


def test_a_topic_that_is_named_at_a_restore_for_the_first_time_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The state of the checkpoint does not name it, so its element would never be made."""
    broker, known = Broker({"a": 1, "b": 2}), Cell()
    new = asking(broker, monkeypatch)
    first = DiscoverPartitions([begin("a", 0, 3)], new, Watched(), 0, lambda: 0.0)
    assert emitted(first.process((0, b""), known, Timer())) == [("a", 0, 3)]
    begins = [begin("a", 0, 3), begin("b", 0, 4), begin("b", 1, 5)]
    restored = DiscoverPartitions(begins, new, Watched(), 0, lambda: 0.0)
    found = [*restored.ask_broker(known, Timer())]
    assert emitted(found) == [("b", 0, 4), ("b", 1, 5)]
    # They did not hold the watermark back while the job ran without them.
    positions = [decode_position(encoded) for _, encoded in found]
    assert all(each.is_new and each.watermark_us is None for each in positions)
    assert not [*restored.ask_broker(known, Timer())]


def test_a_new_topic_is_found_as_a_whole_or_not_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other partitions would begin at 0 later on: what retention has deleted is no loss."""
    broker = Broker({"pay-1": 2})
    new = asking(broker, monkeypatch, "pay-.*")
    broker.silent = {1}
    assert not new.beyond({})
    broker.silent = set()
    assert [(each.partition, each.offset) for each in new.beyond({})] == [(0, 7), (1, 7)]


def test_a_topic_that_is_unknown_between_two_questions_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that has just started may not know it yet. Whether it is deleted is found by those
    that read its partitions, which wait for a minute.
    """
    broker = Broker({"a": 2, "pay-1": 1})
    new = asking(broker, monkeypatch, "pay-.*")
    broker.deleted = {"pay-1"}
    assert [(each.topic, each.partition) for each in new.beyond({"a": 1})] == [("a", 1)]
    broker.deleted = {"a"}
    assert [(each.topic, each.partition) for each in new.beyond({"a": 1})] == [("pay-1", 0)]
    broker.deleted = set()
    assert [each.topic for each in new.beyond({"a": 1, "pay-1": 1})] == ["a"]


def test_an_error_that_a_person_must_decide_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, known, watched = Broker({"a": 1}), Cell(), Watched()

    def refused(_: Sequence[PartitionPosition]) -> Sequence[PartitionPosition]:
        raise GuaranteeError("another job owns the tables")

    new = asking(broker, monkeypatch, record=refused)
    step = DiscoverPartitions([begin("a", 0, 3)], new, watched, 0, lambda: 0.0)
    assert [*step.process((0, b""), known, Timer())]
    assert not [*step.ask_broker(known, Timer())]
    assert (watched.failed, watched.well) == ([], ["new partitions"])
    broker.topics_there = {"a": 2}
    with pytest.raises(GuaranteeError):
        [*step.ask_broker(known, Timer())]
    assert watched.failed == ["new partitions"]


def test_what_reads_no_partition_yet_is_not_ahead_of_those_that_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A subtask of ReadLoop without a partition passes this watermark on. It cannot go back, so a
    partition that the subtask gets later would hold nothing, and the shards would expire its ids.
    """
    hour, skew, now = 3_600_000_000, 300_000_000, 1_790_000_000.0
    known, timer = Cell(), Timer()
    new = asking(Broker({"a": 1}), monkeypatch)
    step = DiscoverPartitions([begin("a", 0, 3)], new, Watched(), hour - skew, lambda: now)
    latest = int(now * 1_000_000) + skew - hour
    assert [*step.process((0, b""), known, timer)]
    assert timer._input_timestamp.micros == latest
    now += 15
    assert not [*step.ask_broker(known, timer)]
    assert timer._input_timestamp.micros == latest + 15_000_000
