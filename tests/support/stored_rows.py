"""What a destination of either kind holds, coordinate by coordinate, against what was sent."""

from __future__ import annotations

from collections import Counter

from confluent_kafka import Consumer, TopicPartition

from pipeline.check.command import check
from pipeline.check.result import FAILED
from pipeline.demo.destination import DemoDestination
from tests.support.payment_sender import Sent

TABLES = ("payment_transactions", "duplicate_transactions", "rejected_records")


def assert_holds_exactly(
    destination: DemoDestination, sent: Sent, servers: str, topic: str, partitions: int
) -> None:
    """Each id is paid once, its further copies are duplicates, broken records are rejected; each
    offset of the topic is one row of one table; and no check fails.
    """
    paid, copies = (_ids(destination, table) for table in TABLES[:2])
    assert paid == Counter(dict.fromkeys(sent.ids, 1))
    assert copies == sent.ids - paid
    rejected = destination.query("SELECT payload FROM {rejected_records}")
    assert [row["payload"] for row in rejected] == [b"broken"] * sent.broken
    assert _coordinates(destination) == _offsets(servers, topic, partitions)
    with destination.destination as opened:
        results = list(check(opened, None, 100.0, 400))
    assert [result for result in results if result.status == FAILED] == []


def _ids(destination: DemoDestination, table: str) -> Counter[str]:
    rows = destination.query(
        f"SELECT transaction_id, COUNT(*) AS copies FROM {{{table}}} GROUP BY transaction_id"
    )
    return Counter({row["transaction_id"]: row["copies"] for row in rows})


def _coordinates(destination: DemoDestination) -> Counter[tuple[int, int]]:
    found: Counter[tuple[int, int]] = Counter()
    for table in TABLES:
        rows = destination.query(f"SELECT kafka_partition, kafka_offset FROM {{{table}}}")
        found.update((row["kafka_partition"], row["kafka_offset"]) for row in rows)
    return found


def _offsets(servers: str, topic: str, partitions: int) -> Counter[tuple[int, int]]:
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "oracle"})
    try:
        ends = {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1]
            for number in range(partitions)
        }
    finally:
        consumer.close()
    return Counter((number, offset) for number, end in ends.items() for offset in range(end))
