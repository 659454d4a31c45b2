"""Readers that are kept, on a real broker: one consumer for range after range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.kafka_admin import KafkaAdmin
from pipeline.options.consumer_config import ConsumerConfig, load_consumer_config
from pipeline.run import command as run_module
from tests.support.in_memory_kafka import config as run_config
from tests.support.in_memory_kafka import payment, run, table
from tests.support.kafka_broker import running_broker
from tests.support.topics import QUIET, FreshTopic, send, send_transactions, state_of
from tests.support.whole_runs import failures
from transforms.model.errors import GuaranteeError
from transforms.model.run_report import ReaderReport
from transforms.read import partition_reader
from transforms.read.partition_reader import PartitionRange
from transforms.read.read_records import RangeSeen
from transforms.read.reader_pool import READERS, ReaderPool

pytestmark = pytest.mark.cluster


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Consumer]:
    """The consumers of all readers, as they are made."""
    consumers: list[Consumer] = []

    def make(settings: dict[str, Any]) -> Consumer:
        consumers.append(Consumer(settings))
        return consumers[-1]

    monkeypatch.setattr(partition_reader, "Consumer", make)
    return consumers


@pytest.fixture
def pool() -> Iterator[ReaderPool]:
    pool = ReaderPool()
    yield pool
    pool.close_unless_kept()


def read_kept(
    pool: ReaderPool, config: ConsumerConfig, wanted: PartitionRange
) -> tuple[list[int], ReaderReport]:
    seen = RangeSeen(wanted)
    with pool.lent(config, wanted) as lent:
        for block in lent.read(wanted, 1000):
            seen.add(np.array(block.offsets, dtype=np.int64))
    report = seen.report()
    gone = {offset for first, last in report.gaps for offset in range(first, last + 1)}
    return sorted(set(range(wanted.from_offset, wanted.to_offset)) - gone), report


def test_a_kept_reader_reads_the_same_range_again_and_others_with_much_queued_behind(
    kafka_broker, fresh_topic: FreshTopic, config, pool: ReaderPool, made: list[Consumer]
) -> None:
    """A position, or a record, of the range before would make gaps of what lies between."""
    topics = [fresh_topic(), fresh_topic()]
    for topic in topics:
        send(kafka_broker, topic, [b"%d" % number for number in range(20_000)])
    with KafkaAdmin(config) as admin:
        planned = admin.cluster_id()
    ends = [(0, 1000), (0, 1000), (500, 600), (19_000, 19_001), (1000, 2000), (0, 20_000), (3, 4)]
    for start, end in ends * 5:
        for topic in topics:
            found, report = read_kept(pool, config, PartitionRange(topic, 0, start, end, planned))
            assert found == list(range(start, end))
            assert report.gaps == []
    assert len(made) == 1


def test_a_kept_reader_goes_on_behind_markers_and_aborted_records(
    kafka_broker, fresh_topic: FreshTopic, config, pool: ReaderPool, made: list[Consumer]
) -> None:
    """Its position may have come further than the range went."""
    topic = fresh_topic()
    send_transactions(kafka_broker, topic, (True, False) * 10)
    there = [22 * number + offset for number in range(10) for offset in range(10)]
    low, high = state_of(config, topic).partitions[0]
    assert (low, high) == (0, 220)
    for size in (220, 22, 11, 10, 220):
        read_all = [
            read_kept(pool, config, PartitionRange(topic, 0, start, min(start + size, high)))[0]
            for start in range(0, high, size)
        ]
        assert [offset for found in read_all for offset in found] == there
    assert len(made) == 1


def test_run_after_run_by_one_consumer_reads_every_record_once(
    kafka_broker, fresh_topic: FreshTopic, config, tmp_path: Path, made: list[Consumer]
) -> None:
    topic, path = fresh_topic(), tmp_path / "payments.duckdb"
    settings = run_config(path, topics=(topic,), consumer_config=config)
    with READERS.kept():
        for number in range(4):
            send(kafka_broker, topic, [payment(f"{number} {each}") for each in range(7)])
            run(settings)
    assert len(made) == 1
    assert table(path, "SELECT COUNT(DISTINCT transaction_id), COUNT(*) FROM payment_transactions")[
        0
    ] == (28, 28)
    assert failures(path) == []


@pytest.mark.parametrize("after_the_plan", [False, True])
def test_a_kept_reader_does_not_hide_that_its_topic_was_created_again(
    kafka_broker,
    fresh_topic: FreshTopic,
    recreate_topic: Callable[..., None],
    config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    after_the_plan: bool,
) -> None:
    topic, path = fresh_topic(), tmp_path / "payments.duckdb"
    settings = run_config(path, topics=(topic,), consumer_config=config)
    original = run_module.read_and_write

    def create_again() -> None:
        recreate_topic(topic)
        send(kafka_broker, topic, [payment(f"new {number}") for number in range(9)])

    def read_the_new_one(*arguments: Any) -> None:
        create_again()
        original(*arguments)

    with READERS.kept():
        send(kafka_broker, topic, [payment(f"old {number}") for number in range(5)])
        run(settings)
        send(kafka_broker, topic, [payment("unread")])
        if after_the_plan:
            monkeypatch.setattr(run_module, "read_and_write", read_the_new_one)
        else:
            create_again()
        with pytest.raises(GuaranteeError, match=r"deleted and created again|planned with the id"):
            run(settings)
    assert table(path, "SELECT COUNT(*) FROM payment_transactions") == [(5,)]


def test_a_broker_that_was_restarted_while_a_reader_lay_idle(
    tmp_path, pool: ReaderPool, made: list[Consumer]
) -> None:
    with running_broker(tmp_path / "broker") as broker:
        config = load_consumer_config(None, broker.bootstrap_servers, None)
        admin = AdminClient({**QUIET, "bootstrap.servers": broker.bootstrap_servers})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(30)
        send(broker, "t", [b"x"] * 10)
        cluster = admin.list_topics(timeout=10).cluster_id
        assert read_kept(pool, config, PartitionRange("t", 0, 0, 4, cluster))[0] == [0, 1, 2, 3]
        broker.restart(killed=True)
        send(broker, "t", [b"y"] * 10)
        found, report = read_kept(pool, config, PartitionRange("t", 0, 4, 20, cluster))
        assert found == list(range(4, 20))
        assert report.gaps == []
        assert read_kept(pool, config, PartitionRange("t", 0, 0, 20, cluster))[0] == [*range(20)]
    assert len(made) >= 2, "the client that has lost its connection was given up"
