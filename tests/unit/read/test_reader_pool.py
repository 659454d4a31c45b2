"""Readers that lie idle: who gets one again, and what of its past may not reach the next range."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.read import partition_reader, reader_pool
from transforms.read.broker_errors import BrokerErrors
from transforms.read.consumer_settings import consumer_settings
from transforms.read.partition_reader import PartitionRange, PartitionReader
from transforms.read.read_records import ReadRange
from transforms.read.reader_pool import MOST_IDLE, ReaderPool

CONFIG = {"bootstrap.servers": "b:1", "group.id": "g"}
RANGE = PartitionRange("payments", 0, 5, 10)
REFUSED = KafkaError(KafkaError._AUTHENTICATION, "refused")
GONE = KafkaError(KafkaError._TRANSPORT, "Disconnected")


class Stopping:
    """A consumer whose assignments have no records, and stop after so many polls.

    Until then `position` is that of the old one, as librdkafka's is.
    """

    made: list[Stopping]
    polls_to_stop = 0

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.stands_at: dict[tuple[str, int], int] = {}
        self.assigned: tuple[str, int] | None = None
        self.polls = 0
        self.next: list[Message] = []
        self.reports: list[KafkaError] = []
        self.unanswered = 0
        self.unanswered_by = GONE
        self.cluster = "planned"
        self.closed = False
        self.made.append(self)

    def assign(self, partitions: Sequence[TopicPartition]) -> None:
        assert not self.closed
        (each,) = partitions
        self.assigned = each.topic, each.partition
        assert self.assigned not in self.stands_at, "the old position would be taken for the new"

    def unassign(self) -> None:
        self.assigned, self.polls = None, self.polls_to_stop

    def consume(self, _records: int, _seconds: float) -> list[Message]:
        for report in self.reports:
            self.settings["error_cb"](report)
        self.reports = []
        if self.assigned is not None:
            self.stands_at[self.assigned] = RANGE.to_offset
        elif self.polls:
            self.polls -= 1
        else:
            self.stands_at.clear()
        got, self.next = self.next, []
        return got

    def position(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        assert not self.closed
        return [
            TopicPartition(
                each.topic,
                each.partition,
                self.stands_at.get((each.topic, each.partition), OFFSET_INVALID),
            )
            for each in partitions
        ]

    def list_topics(self, topic: str, _seconds: float) -> SimpleNamespace:
        if self.unanswered:
            self.unanswered -= 1
            raise KafkaException(self.unanswered_by)
        return SimpleNamespace(cluster_id=self.cluster)

    def close(self) -> None:
        assert not self.closed
        self.closed = True


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> list[Stopping]:
    Stopping.made, Stopping.polls_to_stop = [], 0
    monkeypatch.setattr(partition_reader, "Consumer", Stopping)
    return Stopping.made


@pytest.fixture
def pool() -> Iterator[ReaderPool]:
    pool = ReaderPool()
    yield pool
    pool.close_unless_kept()


def read(pool: ReaderPool, wanted: PartitionRange = RANGE) -> None:
    with pool.lent(CONFIG, wanted) as reader:
        assert list(reader.read(wanted)) == []


def test_range_after_range_is_read_by_one_consumer(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    for partition in (0, 1, 0):
        read(pool, PartitionRange("payments", partition, 5, 10))
    read(pool, PartitionRange("others", 0, 5, 10))
    assert len(consumers) == 1
    assert not consumers[0].closed


@pytest.mark.parametrize("batch_records", [5, 100])
def test_nothing_more_is_fetched_while_the_last_block_is_worked_on(
    batch_records: int, consumers: list[Stopping], pool: ReaderPool
) -> None:
    fetching = []
    with pool.lent(CONFIG, RANGE) as reader:
        consumers[0].next = [
            Message(topic="payments", partition=0, offset=offset, value=b"{}", timestamp=(1, 1))
            for offset in range(RANGE.from_offset, RANGE.to_offset)
        ]
        for _ in reader.read(RANGE, batch_records):
            fetching.append(consumers[0].assigned is not None)
    assert fetching and not fetching[-1]


@pytest.mark.parametrize("polls", [1, partition_reader._STOP_POLLS - 1])
def test_an_assignment_that_has_not_stopped_is_waited_for(
    polls: int, consumers: list[Stopping], pool: ReaderPool
) -> None:
    """Else the new range would begin where the old one has ended: gaps, that no step has seen."""
    Stopping.polls_to_stop = polls
    for _ in range(3):
        read(pool)
    assert len(consumers) == 1


@pytest.mark.parametrize(("given", "waits"), [({}, "1"), ({"fetch.wait.max.ms": "2000"}, "2000")])
def test_a_fetch_waits_for_a_moment_only_unless_the_user_says_otherwise(
    given: dict[str, str], waits: str, consumers: list[Stopping]
) -> None:
    PartitionReader({**CONFIG, **given})
    assert consumers[0].settings["fetch.wait.max.ms"] == waits
    forever = consumer_settings({**CONFIG, **given}, BrokerErrors(CONFIG["bootstrap.servers"]))
    assert forever["fetch.wait.max.ms"] == given.get("fetch.wait.max.ms", 10)


def test_an_assignment_that_does_not_stop_gives_its_consumer_up(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    Stopping.polls_to_stop = partition_reader._STOP_POLLS
    read(pool)
    read(pool)
    assert [consumer.closed for consumer in consumers] == [True, False]


def test_what_still_comes_when_nothing_is_read_gives_the_consumer_up(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    read(pool)
    consumers[0].next = [Message(topic="payments", partition=0, offset=7, value=b"old")]
    read(pool)
    assert [consumer.closed for consumer in consumers] == [True, False]


@pytest.mark.parametrize("error", [REFUSED, GONE])
def test_trouble_while_it_lay_idle_is_not_judged_as_that_of_the_next_range(
    error: KafkaError, consumers: list[Stopping], pool: ReaderPool
) -> None:
    read(pool)
    consumers[0].reports = [error]
    read(pool)
    assert [consumer.closed for consumer in consumers] == [True, False]


def test_trouble_that_passed_within_a_range_gives_the_consumer_up(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    with pool.lent(CONFIG, RANGE) as reader:
        consumers[0].reports = [GONE]
        list(reader.read(RANGE))
        assert not consumers[0].closed
    assert consumers[0].closed


def test_a_reconnect_that_only_the_log_tells_of_gives_the_consumer_up(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    with pool.lent(CONFIG, RANGE) as reader:
        log = consumers[0].settings["logger"]
        log.log(20, "%s %s %s", "FAIL", "client", "[thrd:b]: b:1: Disconnected")
        list(reader.read(RANGE))
    assert consumers[0].closed


def test_a_missing_right_on_the_group_is_no_trouble_of_a_reader(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    with pool.lent(CONFIG, RANGE) as reader:
        consumers[0].reports = [KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)]
        list(reader.read(RANGE))
    assert not consumers[0].closed


def test_a_range_that_fails_or_is_left_early_gives_the_consumer_up(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    with pool.lent(CONFIG, RANGE) as reader, pytest.raises(GuaranteeError, match="credentials"):
        consumers[0].reports = [REFUSED]
        list(reader.read(RANGE))
    assert consumers[0].closed, "also where the error was caught: the client has reported it"

    def left() -> Iterator[None]:
        with pool.lent(CONFIG, RANGE):
            yield

    leaving = left()
    next(leaving)
    leaving.close()
    with pytest.raises(KeyboardInterrupt), pool.lent(CONFIG, RANGE):
        raise KeyboardInterrupt
    assert [consumer.closed for consumer in consumers] == [True, True, True]


def test_another_configuration_gets_another_consumer(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    read(pool)
    with pool.lent({**CONFIG, "sasl.password": "new"}, RANGE) as reader:
        list(reader.read(RANGE))
    assert [consumer.settings.get("sasl.password") for consumer in consumers] == [None, "new"]
    read(pool)
    assert len(consumers) == 2


def test_readers_at_the_same_time_have_consumers_of_their_own_and_few_are_kept(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    threads = MOST_IDLE + 3
    all_at_once = threading.Barrier(threads)

    def one(partition: int) -> None:
        wanted = PartitionRange("payments", partition, 5, 10)
        with pool.lent(CONFIG, wanted) as reader:
            all_at_once.wait(30)
            list(reader.read(wanted))
            all_at_once.wait(30)

    running = [threading.Thread(target=one, args=(number,)) for number in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join(30)
    assert len(consumers) == threads
    assert sum(not consumer.closed for consumer in consumers) == MOST_IDLE


def test_what_lies_idle_is_kept_from_run_to_run_and_closed_behind_the_last(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    with pool.kept():
        for _ in range(2):
            with pool.kept():
                read(pool)
                pool.close_unless_kept()
            assert not consumers[0].closed
    assert len(consumers) == 1
    assert consumers[0].closed
    read(pool)
    pool.close_unless_kept()
    assert [consumer.closed for consumer in consumers] == [True, True]


def test_a_process_that_makes_one_run_closes_what_lies_idle_with_the_step(
    consumers: list[Stopping], pool: ReaderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_pool, "READERS", pool)
    step = pickle.loads(pickle.dumps(ReadRange(CONFIG)))
    step.setup()
    with pool.lent(CONFIG, RANGE) as reader:
        list(reader.read(RANGE))
    step.teardown()
    assert consumers[0].closed


def test_a_forked_process_does_not_touch_the_clients_of_its_parent(
    consumers: list[Stopping], pool: ReaderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_pool, "READERS", pool)
    read(pool)
    if (child := os.fork()) == 0:
        read(reader_pool.READERS)
        reader_pool.READERS.close_unless_kept()
        found = [consumer.closed for consumer in consumers]
        os._exit(0 if found == [False, True] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    read(pool)
    assert len(consumers) == 1


def test_a_reader_says_itself_that_it_was_led_to_another_cluster(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    """It may be connected for long: what a new connection says would be true of that one only."""
    planned = PartitionRange("payments", 0, 5, 10, "planned")
    read(pool, planned)
    consumers[0].cluster = "another"
    with (
        pytest.raises(GuaranteeError, match="Kafka cluster another; planned was planned"),
        pool.lent(CONFIG, planned) as reader,
    ):
        list(reader.read(planned))
    assert consumers[0].closed


LED_ELSEWHERE = (
    '[thrd:main]: Broker b:1/1 reports different ClusterId "another" than previously known'
    ' "planned": a client must not be simultaneously connected to multiple clusters'
)


def test_a_reader_with_brokers_of_two_clusters_has_read_from_either(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    """The broker that answers is of the planned one, and not always the one that it reads from."""
    planned = PartitionRange("payments", 0, 5, 10, "planned")
    with (
        pytest.raises(GuaranteeError, match=r"more than one Kafka cluster \(Broker b:1/1 "),
        pool.lent(CONFIG, planned) as reader,
    ):
        log = consumers[0].settings["logger"]
        log.log(30, "%s %s %s", "CLUSTERID", "client", LED_ELSEWHERE)
        list(reader.read(planned))
    assert consumers[0].closed


def test_a_reader_that_was_led_elsewhere_while_it_lay_idle_is_given_up(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    planned = PartitionRange("payments", 0, 5, 10, "planned")
    read(pool, planned)
    log = consumers[0].settings["logger"]
    log.log(30, "%s %s %s", "CLUSTERID", "client", LED_ELSEWHERE)
    read(pool, planned)
    assert [consumer.closed for consumer in consumers] == [True, False]


def test_a_broker_that_does_not_say_which_cluster_it_is_is_asked_again(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    planned = PartitionRange("payments", 0, 5, 10, "planned")
    with pool.lent(CONFIG, planned) as reader:
        consumers[0].unanswered = 3
        assert list(reader.read(planned)) == []
    assert consumers[0].unanswered == 0
    assert consumers[0].closed, "no answer is trouble"


def test_an_answer_that_waiting_does_not_mend_ends_the_run(
    consumers: list[Stopping], pool: ReaderPool
) -> None:
    planned = PartitionRange("payments", 0, 5, 10, "planned")
    with (
        pytest.raises(TryAgainLater, match="does not say which cluster it is"),
        pool.lent(CONFIG, planned) as reader,
    ):
        consumers[0].unanswered = 1
        consumers[0].unanswered_by = KafkaError(KafkaError._STATE)
        list(reader.read(planned))
    assert consumers[0].closed


# The same by librdkafka itself, with its mock cluster.

RECORDS = 2000


@pytest.fixture
def mock_cluster() -> Iterator[dict[str, str]]:
    producer = Producer({"bootstrap.servers": "b", "test.mock.num.brokers": 1, "log_level": 2})
    for topic in ("payments", "others"):
        for number in range(RECORDS):
            producer.produce(topic, f"{topic} {number}".encode(), partition=0)
    assert producer.flush(30) == 0
    broker = next(iter(producer.list_topics(timeout=10).brokers.values()))
    yield {"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "g"}


def test_what_was_fetched_behind_the_end_of_a_range_never_arrives_in_the_next(
    mock_cluster: dict[str, str], pool: ReaderPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each range ends with most of its partition queued; the next begins before, behind, within."""
    made: list[Consumer] = []

    def counted(settings: dict[str, Any]) -> Consumer:
        made.append(Consumer(settings))
        return made[-1]

    monkeypatch.setattr(partition_reader, "Consumer", counted)
    for first, last in [(0, 100), (50, 60), (1500, 1600), (100, 101), (0, RECORDS), (7, 9)] * 3:
        for topic in ("payments", "others"):
            wanted = PartitionRange(topic, 0, first, last)
            with pool.lent(mock_cluster, wanted, PartitionReader) as reader:
                blocks = list(reader.read(wanted))
            assert [offset for block in blocks for offset in block.offsets] == list(
                range(first, last)
            )
            assert [value for block in blocks for value in block.values] == [
                f"{topic} {number}".encode() for number in range(first, last)
            ]
    assert len(made) == 1
