"""What Kafka no longer holds, or holds under another identity, is never passed over in silence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipeline.kafka_admin import TopicState
from pipeline.options.config import Start
from pipeline.run import command as run_module
from pipeline.run.command import run_until_caught_up
from tests.faults.dying import die_after
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    Partition,
    config,
    payment,
    run,
    table,
)
from tests.support.whole_runs import IDS, expire, failures
from transforms.destinations.contract.run_ledger import PREPARED, RunRecord
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.elements import RawBlock
from transforms.model.errors import GuaranteeError
from transforms.read import read_records as read_module
from transforms.read.partition_reader import PartitionRange

GAPS = "SELECT kafka_partition, first_offset, last_offset, cause FROM offset_gaps ORDER BY ALL"
REJECTED = "SELECT reason, kafka_partition, kafka_offset FROM rejected_records ORDER BY ALL"
RUNS = "SELECT run_id FROM pipeline_runs"


# A partition that the ledger does not know, of a topic that it knows: begins at offset 0.


def grow(kafka: InMemoryKafka, *values: bytes, deleted: int) -> None:
    """The topic gets one more partition, whose first records expire before the next run."""
    partitions = kafka.topics["payments"].partitions
    partitions.append(Partition())
    kafka.send("payments", len(partitions) - 1, *values)
    partitions[-1].deleted = deleted


@pytest.mark.parametrize("start", ["earliest", "latest"])
def test_a_new_partition_that_has_lost_its_first_offsets_is_a_loss(
    kafka: InMemoryKafka, path: Path, start: str
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path, start=Start(start)))
    grow(kafka, payment("b"), payment("c"), payment("d"), deleted=2)
    before = table(path, RUNS)
    with pytest.raises(
        GuaranteeError,
        match=r"topic payments partition 1: offsets 0 to 1 were deleted .*--on_data_loss=accept",
    ):
        run(config(path))
    assert table(path, RUNS) == before
    run(config(path, on_data_loss="accept"))
    assert ("d",) in table(path, IDS)
    assert table(path, GAPS) == [(1, 0, 1, "deleted")]


def test_a_new_partition_of_which_nothing_is_left_is_a_loss(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    run(config(path))
    grow(kafka, payment("b"), payment("c"), deleted=2)
    with pytest.raises(GuaranteeError, match="offsets 0 to 1 were deleted"):
        run(config(path))
    run(config(path, on_data_loss="accept"))
    assert table(path, GAPS) == [(1, 0, 1, "deleted")]


def test_the_first_offsets_of_a_topic_that_is_named_for_the_first_time_are_no_loss(
    kafka: InMemoryKafka, path: Path
) -> None:
    """Retention has been at work in a topic with history: the run begins at what is there."""
    kafka.create("payments", 1)
    run(config(path))
    kafka.create("refunds", 1)
    kafka.send("refunds", 0, payment("b"), payment("c"))
    kafka.topics["refunds"].partitions[0].deleted = 1
    run(config(path, topics=("payments", "refunds")))
    assert table(path, IDS) == [("c",)]
    assert table(path, GAPS) == []


# What a partition without a watermark of its own starts at.


def test_a_new_partition_is_not_held_back_by_a_topic_that_is_no_longer_read(
    kafka: InMemoryKafka, path: Path
) -> None:
    """Its copies would be accepted for as long as that topic's watermark lies behind."""
    kafka.create("retired", 1)
    kafka.send("retired", 0, payment("old", NOW_US - 102 * HOUR_US))
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a", NOW_US - HOUR_US))
    run(config(path, topics=("retired", "payments")))
    grow(kafka, payment("far behind", NOW_US - 100 * HOUR_US), payment("on time"), deleted=0)
    (record,) = run(config(path))
    assert table(path, REJECTED) == [("late", 1, 0)]
    new = next(part for part in record.partitions if part.partition == 1)
    assert new.start_watermark == NOW_US - 2 * HOUR_US
    assert record.lowest_watermark == NOW_US - 2 * HOUR_US
    assert failures(path) == []


def test_a_topic_without_a_watermark_starts_at_what_the_last_run_has_reached(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("retired", 1)
    kafka.send("retired", 0, payment("old"))
    run(config(path, topics=("retired",)))
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("old", NOW_US - 2 * HOUR_US), payment("old"))
    run(config(path))
    assert table(path, REJECTED) == [("late", 0, 0)]
    assert table(path, IDS) == [("old",)]
    assert failures(path) == []


# A partition whose position moves although no payment comes.


def watermarks(record: RunRecord) -> list[int | None]:
    return [part.watermark for part in record.partitions]


def test_a_partition_of_nothing_but_broken_records_does_not_hold_back_expiry(
    kafka: InMemoryKafka, path: Path
) -> None:
    """Partition 1 is written all the time: its position never is the end of the log at a plan."""
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"))
    kafka.send("payments", 1, payment("b"))
    run(config(path))
    for hour in range(1, 7):
        now = NOW_US + hour * HOUR_US
        kafka.send("payments", 0, payment(f"a{hour}", now))
        kafka.send("payments", 1, b"broken", payment("late", NOW_US - 9 * HOUR_US))
        (record,) = run(config(path), now_us=now)
        assert watermarks(record) == [now - HOUR_US, now - HOUR_US]
        assert record.live_ids <= 3
    assert failures(path) == []


def test_a_backlog_behind_broken_records_is_not_late(kafka: InMemoryKafka, path: Path) -> None:
    """After an outage of five hours; the first transaction reads nothing but broken records."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("before"))
    run(config(path))
    kafka.send("payments", 0, *[b"broken"] * 6)
    backlog = [payment(f"a{minute}", NOW_US + minute * MINUTE_US) for minute in range(1, 300, 40)]
    kafka.send("payments", 0, *backlog, timestamp_us=NOW_US + 5 * HOUR_US)
    records = run(config(path, max_records_per_run=3), now_us=NOW_US + 5 * HOUR_US)
    assert watermarks(records[0]) == watermarks(records[1]) == [NOW_US - HOUR_US]
    assert table(path, "SELECT DISTINCT reason FROM rejected_records") == [("invalid_json",)]
    assert len(table(path, IDS)) == 9
    assert failures(path) == []


def test_what_arrives_after_the_end_of_the_log_was_asked_for_is_not_late(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock counts up to the question, not up to the plan or the end of the run."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.send("payments", 0, b"broken")
    clock = iter(NOW_US + hour * HOUR_US for hour in range(3, 50))
    asked, original = [], kafka.topic_state

    def topic_state(topic: str, now_us: int) -> TopicState:
        asked.append(now_us)
        return original(topic, now_us)

    monkeypatch.setattr(kafka, "topic_state", topic_state)
    with DuckDBDestination(str(path)) as destination:
        (record,) = run_until_caught_up(config(path), destination, lambda: next(clock))
    assert watermarks(record) == [asked[0] - HOUR_US]


@pytest.mark.parametrize("idle_timeout_us", [None, 10 * MINUTE_US])
def test_a_partition_that_has_not_been_quiet_for_the_idle_timeout_keeps_its_watermark(
    kafka: InMemoryKafka, path: Path, idle_timeout_us: int | None
) -> None:
    """An upstream that is five hours behind, with one transaction of broken records only."""
    settings = config(path, idle_timeout_us=idle_timeout_us)
    kafka.create("payments", 1)
    behind = NOW_US - 5 * HOUR_US
    for minute in range(12):
        now = NOW_US + minute * MINUTE_US
        good = payment(f"a{minute}", behind + minute * MINUTE_US)
        kafka.send("payments", 0, b"broken" if minute in (4, 5, 6) else good)
        run(settings, now_us=now)
    assert table(path, "SELECT DISTINCT reason FROM rejected_records") == [("invalid_json",)]
    assert len(table(path, IDS)) == 9
    assert failures(path) == []


# The topic and the cluster that were planned are the ones that were read.


def while_reading(
    kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch, change: object, after: bool
) -> None:
    original = kafka.read

    def read(wanted: PartitionRange, batch_records: int = 100) -> Iterator[RawBlock]:
        assert callable(change)
        if not after:
            change()
        yield from original(wanted, batch_records)
        if after:
            change()

    monkeypatch.setattr(kafka, "read", read)


@pytest.mark.parametrize("after", [False, True])
def test_a_topic_that_is_recreated_after_the_plan_is_noticed_before_anything_is_visible(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    kafka.create("payments", 1, topic_id="X")
    kafka.send("payments", 0, *(payment(f"old {number}") for number in range(5)))

    def recreate() -> None:
        kafka.create("payments", 1, topic_id="Y")
        kafka.send("payments", 0, *(payment(f"new {number}") for number in range(8)))

    with monkeypatch.context() as patch:
        while_reading(kafka, patch, recreate, after)
        with pytest.raises(GuaranteeError, match=r"payments .*planned with the id X.*has the id Y"):
            run(config(path))
    assert table(path, IDS) == []
    assert table(path, RUNS) == [("genesis",)]


def test_a_topic_that_is_deleted_while_it_is_read_stops_the_run(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    with monkeypatch.context() as patch:
        while_reading(kafka, patch, lambda: kafka.topics.pop("payments"), after=True)
        with pytest.raises(GuaranteeError, match="payments"):
            run(config(path))
    assert table(path, IDS) == []


def test_a_cluster_that_changes_while_it_is_read_stops_the_run(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the servers leads to another cluster from one moment to the next."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))

    def move() -> None:
        kafka.cluster = "cluster-2"

    with monkeypatch.context() as patch:
        while_reading(kafka, patch, move, after=True)
        with pytest.raises(GuaranteeError, match="cluster-2"):
            run(config(path))
    assert table(path, IDS) == []


def test_a_topic_of_another_run_that_is_recreated_does_not_concern_this_one(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for topic in ("payments", "refunds"):
        kafka.create(topic, 1)
        kafka.send(topic, 0, payment(topic))
    run(config(path, topics=("payments", "refunds")))
    kafka.send("payments", 0, payment("a", NOW_US))
    while_reading(kafka, monkeypatch, lambda: kafka.create("refunds", 1, "Z"), after=True)
    run(config(path))
    assert ("a",) in table(path, IDS)


# What an adversarial reading found.


def test_check_holds_a_repair_against_the_topics_of_the_run_that_it_repairs(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair takes its start watermarks from the expired run, but records the topics of its own
    command line; `check` holds the one against the other, and fails for ever.
    """
    kafka.create("retired", 1)
    kafka.send("retired", 0, payment("old", NOW_US - 102 * HOUR_US))
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a", NOW_US - HOUR_US))
    run(config(path, topics=("retired", "payments")))
    kafka.topics["payments"].partitions.append(Partition())
    kafka.send("payments", 1, payment("b", NOW_US - 90 * HOUR_US), payment("b"))
    die_after(1, path, monkeypatch, topics=("retired", "payments"))
    expire(path)
    run(config(path, topics=("payments",)))
    assert table(path, IDS) == [("a",), ("b",), ("old",)]
    assert failures(path) == []


def test_a_repair_is_not_refused_for_ever_because_the_cluster_tells_its_id_now(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id of the cluster was unknown to the ledger: `check_cluster` and `check` take that for
    "cannot tell", `prove_source` for "another cluster". A plan made anew has the new id; a repair
    has the recorded one, every time.
    """
    monkeypatch.setattr(kafka, "cluster", None)
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("a"), payment("b"))
    die_after(1, path, monkeypatch)
    expire(path)
    monkeypatch.setattr(kafka, "cluster", "cluster-1")
    run(config(path))
    assert table(path, IDS) == [("a",), ("b",)]
    assert table(path, f"SELECT COUNT(*) FROM pipeline_runs WHERE status = '{PREPARED}'") == [(0,)]


class Servers:
    """The name in --bootstrap_servers: it leads each new client to the cluster of the moment.

    A client that is connected stays where it is, as librdkafka does: it knows the brokers by the
    addresses that they have told it, and asks the name again only when all of them are gone.
    """

    def __init__(self, cluster: InMemoryKafka) -> None:
        self.cluster = cluster

    def __call__(self, _consumer_config: Mapping[str, str]) -> InMemoryKafka:
        return self.cluster


def test_readers_that_are_led_to_another_cluster_are_noticed(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver has been connected since the plan; the readers connect after the name has moved.

    `prove_source` asks the driver's old connection, which still leads to the planned cluster.
    """
    other = InMemoryKafka()
    other.cluster = "cluster-2"
    for cluster in (kafka, other):
        cluster.create("payments", 1)
        cluster.send("payments", 0, payment(f"of {cluster.cluster}"))
    servers = Servers(kafka)
    monkeypatch.setattr(run_module, "KafkaAdmin", servers)
    monkeypatch.setattr(read_module, "PartitionReader", servers)
    original = run_module.read_and_write

    def moved_before(*arguments: object) -> None:
        servers.cluster = other
        original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "read_and_write", moved_before)
    with pytest.raises(GuaranteeError, match="cluster-2"):
        run(config(path))
    assert table(path, IDS) == []
