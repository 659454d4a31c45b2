import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
)

from pipeline.kafka_admin import KafkaAdmin
from pipeline.options.config import Start
from pipeline.options.consumer_config import ConsumerConfig, load_consumer_config
from pipeline.options.run_config import parse_adopted
from pipeline.run import command as run_module
from tests.faults.dying import die_after
from tests.support.in_memory_kafka import config as run_config
from tests.support.in_memory_kafka import payment, run, table
from tests.support.kafka_broker import PASSWORD, USER, running_broker
from tests.support.topics import QUIET, FreshTopic, send, send_transactions, state_of
from tests.support.whole_runs import failures
from transforms.model.coordinates import coordinate_sum
from transforms.model.elements import LOG_APPEND_TIME, RawBlock
from transforms.model.errors import GuaranteeError
from transforms.model.run_report import ReaderReport
from transforms.read.partition_reader import PartitionRange, PartitionReader
from transforms.read.read_records import RangeSeen

pytestmark = pytest.mark.cluster


@contextmanager
def reader(config: ConsumerConfig) -> Iterator[PartitionReader]:
    opened = PartitionReader(config)
    try:
        yield opened
    finally:
        opened.close()


def read(
    config: ConsumerConfig, topic: str, start: int, end: int, partition: int = 0, batch: int = 1000
) -> tuple[list[RawBlock], ReaderReport]:
    wanted = PartitionRange(topic, partition, start, end)
    seen = RangeSeen(wanted)
    with reader(config) as partition_reader:
        blocks = list(partition_reader.read(wanted, batch))
    for block in blocks:
        seen.add(np.array(block.offsets, dtype=np.int64))
    return blocks, seen.report()


def offsets_of(blocks: list[RawBlock]) -> list[int]:
    return [offset for block in blocks for offset in block.offsets]


def test_an_exact_range_comes_back_with_its_values_and_nothing_of_its_neighbours(
    kafka_broker, fresh_topic: FreshTopic, config
) -> None:
    topic = fresh_topic()
    send(kafka_broker, topic, [b"%d" % number for number in range(5000)])
    blocks, report = read(config, topic, 1234, 4321, batch=500)
    assert offsets_of(blocks) == list(range(1234, 4321))
    assert [value for block in blocks for value in block.values] == [
        b"%d" % number for number in range(1234, 4321)
    ]
    assert all(stamp > 0 for block in blocks for stamp in block.timestamps)
    assert report == ReaderReport(
        topic, 0, 1234, 4321, 3087, coordinate_sum(topic, 0, np.arange(1234, 4321)), []
    )


def test_null_and_empty_values_stay_what_they_are(
    kafka_broker, fresh_topic: FreshTopic, config
) -> None:
    topic = fresh_topic()
    send(kafka_broker, topic, [None, b"", b"x"])
    blocks, _ = read(config, topic, 0, 3)
    assert blocks[0].values == [None, b"", b"x"]


def test_an_empty_partition_and_a_range_without_length_end_at_once(
    kafka_broker, fresh_topic: FreshTopic, config
) -> None:
    topic = fresh_topic(partitions=2)
    send(kafka_broker, topic, [b"x"] * 3)
    assert state_of(config, topic).partitions == {0: (0, 3), 1: (0, 0)}
    assert read(config, topic, 0, 0, partition=1) == ([], ReaderReport(topic, 1, 0, 0, 0, 0, []))
    assert read(config, topic, 3, 3)[0] == []


def test_transaction_markers_and_aborted_records_are_gaps(
    kafka_broker, fresh_topic: FreshTopic, config
) -> None:
    topic = fresh_topic()
    send_transactions(kafka_broker, topic, (True, False, True, False))
    # 10 records and a marker each: 0-9, 10; 11-20, 21; 22-31, 32; 33-42, 43.
    low, high = state_of(config, topic).partitions[0]
    assert (low, high) == (0, 44)
    blocks, report = read(config, topic, low, high)
    assert offsets_of(blocks) == [*range(10), *range(22, 32)]
    assert report.gaps == [(10, 21), (32, 43)]
    assert read(config, topic, 32, 44)[1].gaps == [(32, 43)]


def test_an_open_transaction_ends_the_range_and_its_records_come_once_it_commits(
    kafka_broker, fresh_topic: FreshTopic, config
) -> None:
    topic = fresh_topic()
    send(kafka_broker, topic, [b"before"] * 2)
    producer = Producer(
        {**QUIET, "bootstrap.servers": kafka_broker.bootstrap_servers, "transactional.id": topic}
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"open", partition=0)
    producer.flush(30)
    assert state_of(config, topic).partitions[0] == (0, 2)
    producer.commit_transaction(30)
    low, high = state_of(config, topic).partitions[0]
    assert offsets_of(read(config, topic, low, high)[0]) == [0, 1, 2]


def test_compacted_records_are_gaps(kafka_broker, fresh_topic: FreshTopic, config) -> None:
    topic = fresh_topic(
        **{
            "cleanup.policy": "compact",
            "segment.bytes": "1048576",
            "min.cleanable.dirty.ratio": "0.0",
            "min.compaction.lag.ms": "0",
        }
    )
    for number in range(12):
        send(kafka_broker, topic, [b"x" * 300_000], b"one key")
        send(kafka_broker, topic, [b"y"], b"key %d" % number)
    report = None
    for _ in range(100):
        blocks, report = read(config, topic, 0, 24)
        if report.gaps:
            break
    assert report is not None and report.gaps
    gone = {offset for first, last in report.gaps for offset in range(first, last + 1)}
    assert sorted(gone | set(offsets_of(blocks))) == list(range(24))
    assert gone <= set(range(0, 24, 2))


def test_deleted_offsets_stop_the_read_and_say_which(
    kafka_broker, fresh_topic: FreshTopic, config
) -> None:
    topic = fresh_topic()
    send(kafka_broker, topic, [b"x"] * 10)
    admin = AdminClient({**QUIET, "bootstrap.servers": kafka_broker.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, 0, 6)]).values():
        future.result(30)
    assert state_of(config, topic).partitions[0] == (6, 10)
    with pytest.raises(GuaranteeError, match="offsets from 0 on, planned up to 9"):
        read(config, topic, 0, 10)
    assert offsets_of(read(config, topic, 6, 10)[0]) == [6, 7, 8, 9]


def test_an_unknown_topic_is_refused_by_name(kafka_broker, config) -> None:
    with KafkaAdmin(config) as admin, pytest.raises(GuaranteeError, match="--topic=no-such-topic"):
        admin.topic_state("no-such-topic", 0)


def test_a_wrong_password_is_told_apart_from_a_broker_that_is_away(
    kafka_broker, fresh_topic: FreshTopic, tmp_path
) -> None:
    topic = fresh_topic()
    send(kafka_broker, topic, [b"x"])
    for password, refused in ((PASSWORD, False), ("wrong", True)):
        path = tmp_path / "consumer.properties"
        path.write_text(
            f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.username={USER}\nsasl.password={password}\n"
        )
        config = load_consumer_config(str(path), kafka_broker.sasl_bootstrap_servers, None)
        assert password not in f"{config} {config!r}"
        if not refused:
            assert offsets_of(read(config, topic, 0, 1)[0]) == [0]
            continue
        with (
            KafkaAdmin(config) as admin,
            pytest.raises(GuaranteeError, match="refuses the credentials"),
        ):
            admin.topic_state(topic, 0)
        with pytest.raises(GuaranteeError, match="refuses the credentials"):
            read(config, topic, 0, 1)


def test_a_recreated_topic_has_another_id_and_the_cluster_keeps_its_own(
    fresh_topic: FreshTopic, recreate_topic: Callable[..., None], config
) -> None:
    topic = fresh_topic()
    before = state_of(config, topic)
    recreate_topic(topic)
    after = state_of(config, topic)
    assert before.topic_id and after.topic_id and before.topic_id != after.topic_id
    with KafkaAdmin(config) as admin:
        assert admin.cluster_id()


def test_a_topic_that_is_recreated_between_plan_and_read_is_noticed_before_the_claim(
    kafka_broker,
    fresh_topic: FreshTopic,
    recreate_topic: Callable[..., None],
    config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker delivers the new topic's records at the planned offsets, with no error."""
    topic = fresh_topic()
    send(kafka_broker, topic, [payment(f"old {number}") for number in range(5)])
    original = run_module.read_and_write

    def read_the_new_one(*arguments: Any) -> None:
        recreate_topic(topic)
        send(kafka_broker, topic, [payment(f"new {number}") for number in range(8)])
        original(*arguments)

    path = tmp_path / "payments.duckdb"
    settings = run_config(path, topics=(topic,), consumer_config=config)
    with monkeypatch.context() as patch, pytest.raises(GuaranteeError, match="planned with the id"):
        patch.setattr(run_module, "read_and_write", read_the_new_one)
        run(settings)
    assert table(path, "SELECT COUNT(*) FROM payment_transactions") == [(0,)]
    with pytest.raises(GuaranteeError, match="deleted and created again"):
        run(settings)


def test_a_recreated_topic_is_adopted_by_the_flag_that_the_refusal_prints(
    kafka_broker,
    fresh_topic: FreshTopic,
    recreate_topic: Callable[..., None],
    config,
    tmp_path: Path,
) -> None:
    """Then it is read, and its group's offsets are committed, under its name in Kafka."""
    topic, path = fresh_topic(), tmp_path / "payments.duckdb"
    send(kafka_broker, topic, [payment("a"), payment("b"), payment("c")])
    where = {"topics": (topic,), "consumer_config": config}
    run(run_config(path, **where))
    recreate_topic(topic)
    send(kafka_broker, topic, [payment("b"), payment("d")])
    with pytest.raises(GuaranteeError) as refused:
        run(run_config(path, **where))
    flag = re.search(r"run --adopt_topic=(\S+@\S+) --on_data_loss=accept", refused.value.message)
    assert flag is not None
    adopted = parse_adopted([flag[1]], [topic])
    run(run_config(path, **where, adopt_topics=adopted, on_data_loss="accept"))
    send(kafka_broker, topic, [payment("a"), payment("e")])
    run(run_config(path, **where))
    rows = "SELECT transaction_id, kafka_topic, kafka_offset FROM {} ORDER BY ALL"
    new = f"{topic}#2"
    assert table(path, rows.format("payment_transactions")) == [
        ("a", topic, 0),
        ("b", topic, 1),
        ("c", topic, 2),
        ("d", new, 1),
        ("e", new, 3),
    ]
    assert table(path, rows.format("duplicate_transactions")) == [("a", new, 2), ("b", new, 0)]
    assert failures(path) == []
    with KafkaAdmin(config) as admin:
        (committed,) = admin._consumer.committed([TopicPartition(topic, 0)], timeout=10)
    assert committed.offset == 4


def test_start_is_resolved_to_numbers(kafka_broker, fresh_topic: FreshTopic, config) -> None:
    topic = fresh_topic()
    producer = Producer({**QUIET, "bootstrap.servers": kafka_broker.bootstrap_servers})
    for number in range(10):
        producer.produce(topic, b"x", partition=0, timestamp=1_000_000 + number * 1000)
    producer.flush(30)
    with KafkaAdmin(config) as admin:
        state = admin.topic_state(topic, 0)
        assert admin.offsets_for_start(state, Start("earliest")) == {0: 0}
        assert admin.offsets_for_start(state, Start("latest")) == {0: 10}
        assert admin.offsets_for_start(state, Start("timestamp", 1_003_500)) == {0: 4}
        assert admin.offsets_for_start(state, Start("timestamp", 9_000_000)) == {0: 10}


def test_group_offsets_are_told_for_lag_monitors(
    kafka_broker, fresh_topic: FreshTopic, config
) -> None:
    topic = fresh_topic()
    with KafkaAdmin(config) as admin:
        admin.commit_offsets({(topic, 0): 0})
        assert admin._consumer.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == 0


def test_group_offsets_of_a_run_that_died_are_told_by_the_one_that_finishes_it(
    kafka_broker, fresh_topic: FreshTopic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, path = fresh_topic(), tmp_path / "payments.duckdb"
    send(kafka_broker, topic, [payment("a"), payment("b")])
    config = load_consumer_config(None, kafka_broker.bootstrap_servers, f"group of {topic}")
    options = {"topics": (topic,), "consumer_config": config}
    die_after(1, path, monkeypatch, **options)
    assert run(run_config(path, **options)) == []
    with KafkaAdmin(config) as admin:
        assert admin._consumer.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == 2


class FirstLine(logging.Handler):
    """Sets an event at the first line that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.set()


def test_a_broker_that_dies_in_the_middle_is_waited_for(tmp_path) -> None:
    waits = FirstLine()
    logging.getLogger("transforms.read.broker_errors").addHandler(waits)
    with running_broker(tmp_path / "broker") as broker:
        config = load_consumer_config(None, broker.bootstrap_servers, None)
        # A small queue, refilled at once: most records are still to be fetched when the broker
        # dies.
        config.update(
            {
                "queued.max.messages.kbytes": "64",
                "queued.min.messages": "10",
                "fetch.message.max.bytes": "20000",
            }
        )
        config["fetch.queue.backoff.ms"] = "1"
        admin = AdminClient({**QUIET, "bootstrap.servers": broker.bootstrap_servers})
        admin.create_topics([NewTopic("t", 1, 1)])["t"].result(30)
        send(
            broker,
            "t",
            [b"%05d" % number + b"x" * 500 for number in range(4_000)],
            **{"batch.size": "20000"},
        )

        values: list[bytes | None] = []
        reading = threading.Event()

        def read_all() -> None:
            with reader(config) as partition_reader:
                for block in partition_reader.read(PartitionRange("t", 0, 0, 4_000), 100):
                    values.extend(block.values)
                    reading.set()
                    if len(values) <= 100:
                        assert killed.wait(60)

        killed = threading.Event()
        thread = threading.Thread(target=read_all)
        thread.start()
        assert reading.wait(60)
        broker.kill()
        killed.set()
        assert waits.seen.wait(60)
        broker.start()
        thread.join(120)
        assert not thread.is_alive()
    logging.getLogger("transforms.read.broker_errors").removeHandler(waits)
    assert [int(value[:5]) for value in values] == list(range(4_000))


def test_each_record_comes_with_the_type_of_its_timestamp(
    kafka_broker, fresh_topic: FreshTopic, config
) -> None:
    """A topic's message.timestamp.type may change: then one block has timestamps of both types."""
    topic = fresh_topic()
    servers = {"bootstrap.servers": kafka_broker.bootstrap_servers}
    admin = AdminClient(servers)
    for kind in ("CreateTime", "LogAppendTime", "CreateTime"):
        change = ConfigEntry(
            "message.timestamp.type", kind, incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[change])
        admin.incremental_alter_configs([resource])[resource].result(30)
        producer = Producer({**QUIET, **servers})
        producer.produce(topic, kind.encode(), partition=0, timestamp=1000)
        assert producer.flush(30) == 0
    ((block,), _) = read(config, topic, 0, 3)
    assert block.timestamp_types == bytearray([1, LOG_APPEND_TIME, 1])
    assert block.timestamps[0] == block.timestamps[2] == 1000 < block.timestamps[1]
