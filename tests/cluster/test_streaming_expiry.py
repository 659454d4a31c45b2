"""Ids expire by event time, whatever a partition does: idle, never written, far behind, new."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from tests.support.kafka_broker import KafkaBroker
from tests.support.payment_sender import meanwhile, now_us, payment
from tests.support.stored_payments import assert_no_check_fails, counted
from tests.support.streaming_command import StreamingCommand
from transforms.destinations.open import open_destination

MINUTE_US = 60_000_000
HORIZON_MINUTES = 2
BEHIND_MINUTES = 60
STEP_MINUTES = 20
BUSY, IDLE, NEVER, BEHIND, ADDED = range(5)


class Flow:
    """Payments that come every 0.2 s; their event times go on only when the test says so.

    They lie hours before the clock, where a partition that passed for idle would find them late.
    minute: of the newest event time, counted from the first one.
    """

    def __init__(self, servers: str, topic: str) -> None:
        self._servers, self._topic = servers, topic
        self._producer = self._connected()
        self._begin_us = now_us() // MINUTE_US * MINUTE_US - 6 * 60 * MINUTE_US
        self._guard = threading.Lock()
        self.minute = BEHIND_MINUTES
        self.busy = [BUSY]
        self.behind = BEHIND_MINUTES
        self.paid: dict[str, int] = {}
        self.copies: Counter[str] = Counter()
        self.late: list[bytes] = []

    def tick(self) -> None:
        """Some new payments in each busy partition, and copies of one of them in all of those."""
        with self._guard:
            for partition, minute in (
                *((each, self.minute) for each in self.busy),
                (BEHIND, self.minute - self.behind),
            ):
                keys = [self.pay(partition, minute) for _ in range(3)]
                for copied in self.busy if partition in self.busy else [BEHIND]:
                    self._send(copied, keys[0], minute)
                    self.copies[keys[0]] += 1
            self._flush()

    def pay(self, partition: int, minute: int) -> str:
        """A payment with an id of its own."""
        key = f"t{len(self.paid)}"
        self.paid[key] = minute
        self._send(partition, key, minute)
        return key

    def send_late(self, partition: int, keys: list[str]) -> None:
        """Copies of payments, with their event times, which their partition or shard has passed."""
        with self._guard:
            self.late += [self._send(partition, key, self.paid[key]) for key in keys]
            self._flush()

    def pay_now(self, partition: int) -> None:
        """A payment with the event time of now."""
        with self._guard:
            self.pay(partition, (now_us() - self._begin_us) // MINUTE_US)
            self._flush()

    def go_on(self, minutes: int) -> None:
        """The event times of all partitions."""
        with self._guard:
            self.minute += minutes

    def add_partition(self) -> None:
        """The topic gets one more. Waits until the broker knows it."""
        admin = AdminClient({"bootstrap.servers": self._servers})
        admin.create_partitions([NewPartitions(self._topic, ADDED + 1)])[self._topic].result(30)
        for _ in range(200):
            if len(admin.list_topics(self._topic, timeout=10).topics[self._topic].partitions) > 4:
                break
            time.sleep(0.05)
        with self._guard:
            # The one before has not heard of it.
            self._producer = self._connected()

    def catch_up(self) -> None:
        """The partition that is behind comes to the same event times as the others."""
        with self._guard:
            self.behind = 0

    def not_expired(self) -> int:
        """Ids that the lowest watermark has not passed by a minute; the others are of no use."""
        with self._guard:
            lowest = self.minute - self.behind - HORIZON_MINUTES - 1
            return sum(minute >= lowest for minute in self.paid.values())

    def _send(self, partition: int, key: str, minute: int) -> bytes:
        value = payment(key, self._begin_us + minute * MINUTE_US)
        self._producer.produce(self._topic, value, partition=partition, on_delivery=_delivered)
        return value

    def _connected(self) -> Producer:
        return Producer(
            {"bootstrap.servers": self._servers, "enable.idempotence": True, "log_level": 2}
        )

    def _flush(self) -> None:
        assert self._producer.flush(60) == 0


def _delivered(error: KafkaError | None, _: object) -> None:
    assert error is None, error


@pytest.fixture
def topic(fresh_topic: Callable[..., str]) -> str:
    return fresh_topic(partitions=4)


def test_live_ids_fall_whatever_a_partition_does(
    command: StreamingCommand, topic: str, kafka_broker: KafkaBroker
) -> None:
    flow = Flow(kafka_broker.bootstrap_servers, topic)
    sizes = []

    def only_what_is_of_use_is_kept(name: str) -> None:
        # More come meanwhile, but they are expected too.
        command.wait_for(
            f"ids expire: {name}", lambda: command.figures().live_ids <= flow.not_expired()
        )
        figures = command.figures()
        sizes.append((name, figures.live_ids, figures.state_bytes, len(flow.paid)))

    def has_watermark(partition: int) -> bool:
        marks = command.figures().gauges("watermark_ms")
        return any(name.endswith(f"_{partition}") for name in marks)

    flow.pay(IDLE, flow.minute)
    flow.tick()
    with meanwhile(flow.tick):
        command.start(f"--dedup_horizon={HORIZON_MINUTES}m", "--idle_timeout=15s")
        command.wait_for("what was never written is idle", lambda: has_watermark(NEVER))
        for _ in range(4):
            flow.go_on(STEP_MINUTES)
            only_what_is_of_use_is_kept("one partition an hour behind")
        first = next(key for key, minute in flow.paid.items() if minute == BEHIND_MINUTES)
        flow.catch_up()
        only_what_is_of_use_is_kept("caught up")
        # What idle partitions get then is judged by the clock.
        flow.pay_now(IDLE)
        flow.pay_now(NEVER)
        flow.add_partition()
        flow.send_late(ADDED, [first] * 5)
        command.wait_for("the new partition is read", lambda: has_watermark(ADDED))
        flow.send_late(BUSY, [first] * 5)
        flow.busy.append(ADDED)
        for _ in range(2):
            flow.go_on(STEP_MINUTES)
            only_what_is_of_use_is_kept("one partition more")
        figures = command.figures()
        if not command.job().restarts():
            assert figures.of("late_behind_expiry") == 5
            assert figures.rejected == {"late": 10}
    command.wait_until_read(5)
    command.interrupt()
    assert command.stop("--lost") == 0
    print(sizes)
    assert all(state_bytes < 20 * live_ids + 10_000 for _, live_ids, state_bytes, _ in sizes)
    _, live_ids, _, paid = sizes[-1]
    assert live_ids < paid / 2
    assert_no_check_fails(command.file)
    with open_destination(f"duckdb:{command.file}") as destination:
        assert counted(destination, "payment_transactions") == Counter(list(flow.paid))
        assert counted(destination, "duplicate_transactions") == flow.copies
        rejected = destination.query("SELECT reason, payload FROM rejected_records").to_pylist()
    assert {row["reason"] for row in rejected} == {"late"}
    assert Counter(row["payload"] for row in rejected) == Counter(flow.late)
