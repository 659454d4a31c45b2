"""How fast `run` is on DirectRunner, beside a bare consumer loop. See benchmarks/README.md.

python -m benchmarks.direct_run [messages]: a real Kafka broker (Java 17, Maven), one topic of 8
partitions, messages of about 250 bytes, 2 % copies. Everything it prints comes from one run of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import MessageGenerator
from tests.support.kafka_broker import KafkaBroker, running_broker

PARTITIONS = 8
PER_KEY_SHARE = 200
"""per_key gets one message of so many, since it does only a few hundred a second."""

_BATCH = 20_000
_SPAN_US = 3_000_000_000


@dataclass(frozen=True)
class Measured:
    """What one process took, and the summary that it printed.

    seconds: wall clock. cpu: CPU seconds of all its threads. peak: memory in bytes.
    """

    seconds: float
    cpu: float
    peak: int
    summary: dict[str, Any]


def main(messages: int) -> None:
    """Sends this many messages, runs the pipeline on them, and prints the figures."""
    few = messages // PER_KEY_SHARE
    with tempfile.TemporaryDirectory() as folder, running_broker(Path(folder) / "broker") as broker:
        bytes_each = {
            topic: send(broker, topic, count)
            for topic, count in (("payments", messages), ("few", few), ("one", 1))
        }["payments"]
        print(
            f"{messages:,} messages of {bytes_each:.0f} bytes on average, {PARTITIONS} partitions,"
            f" {os.cpu_count()} cores"
        )
        bare = consume_bare(broker, messages)
        start_up = run(broker, "one", Path(folder, "one.duckdb"))
        whole = run(broker, "payments", Path(folder, "payments.duckdb"))
        clocks = Path(folder, "clocks.json")
        run(
            broker,
            "payments",
            Path(folder, "clocks.duckdb"),
            module=("benchmarks.measured_run", str(clocks)),
        )
        by_step = json.loads(clocks.read_text())
        per_key = run(broker, "few", Path(folder, "per_key.duckdb"), "--dedup_layout=per_key")
    steady = whole.seconds - start_up.seconds
    print(f"bare consume() loop      {messages / bare:>10,.0f} messages/s")
    print(
        f"run, with start-up       {messages / whole.seconds:>10,.0f} messages/s  "
        f" {whole.seconds:.1f} s, {bare / whole.seconds:.2f} of bare"
    )
    print(
        f"run, without start-up    {messages / steady:>10,.0f} messages/s   start-up"
        f" {start_up.seconds:.1f} s: a run of one message"
    )
    print(
        f"CPU after start-up       {(whole.cpu - start_up.cpu) / messages * 1e6:>10.2f}"
        " microseconds/message, all threads of the run"
    )
    print(f"peak memory              {whole.peak / 1e9:>10.2f} GB")
    accepted, duplicates, state = (
        whole.summary[name] for name in ("accepted", "duplicates", "state_bytes")
    )
    print(
        f"accepted {accepted:,}, duplicates {duplicates:,}, state"
        f" {state / whole.summary['live_ids']:.2f} bytes/live id"
    )
    print(
        f"per_key, {few:,} messages  {few / (per_key.seconds - start_up.seconds):>10,.0f}"
        " messages/s without start-up"
    )
    print("CPU by step, from one more run with a clock in each step:")
    for step, seconds in by_step.items():
        print(f"    {step:<38} {seconds / messages * 1e6:>6.2f} microseconds/message")


def send(broker: KafkaBroker, topic: str, messages: int) -> float:
    """Creates the topic, sends the messages, and returns the average size of a value in bytes.

    Their event times lie within 50 minutes, so that none expires at the default horizon.
    """
    create_topic(broker, topic)
    step_us = max(1, min(1000, _SPAN_US // messages))
    begin_us = time.time_ns() // 1000 - messages * step_us
    generator = MessageGenerator(1, begin_us, duplicate_rate=0.02, step_us=step_us)
    size = 0
    with KafkaSender(
        {"bootstrap.servers": broker.bootstrap_servers, "compression.type": "lz4"}
    ) as sender:
        for start in range(0, messages, _BATCH):
            batch = generator.take(min(_BATCH, messages - start))
            size += sum(len(message.value or b"") for message in batch)
            sender.send(topic, batch)
    return size / messages


def create_topic(broker: KafkaBroker, topic: str) -> None:
    """With PARTITIONS, and no retention."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"})])[
        topic
    ].result(30)


def consume_bare(broker: KafkaBroker, messages: int) -> float:
    """Seconds that a loop takes which reads every value and does nothing with it."""
    settings = {
        "bootstrap.servers": broker.bootstrap_servers,
        "group.id": "bare",
        "queued.min.messages": 1_000_000,
    }
    consumer = Consumer(settings)
    consumer.assign([TopicPartition("payments", partition, 0) for partition in range(PARTITIONS)])
    left, started = messages, time.monotonic()
    while left:
        left -= len([message.value() for message in consumer.consume(5000, 1)])
    seconds = time.monotonic() - started
    consumer.close()
    return seconds


def run(
    broker: KafkaBroker,
    topic: str,
    database: Path,
    *options: str,
    module: tuple[str, ...] = ("pipeline", "run"),
) -> Measured:
    """Runs `run` on a topic as a process of its own. module: what `python -m` starts."""
    where = [
        f"--bootstrap_servers={broker.bootstrap_servers}",
        f"--topic={topic}",
        f"--destination=duckdb:{database}",
    ]
    output = database.with_suffix(".json")
    started = time.monotonic()
    with output.open("wb") as stdout:
        process = subprocess.Popen(
            [sys.executable, "-m", *module, *where, "--json", *options], stdout=stdout
        )
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    if status:
        raise RuntimeError(f"run on {topic} ended with status {os.waitstatus_to_exitcode(status)}")
    return Measured(
        seconds,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss * 1024,
        json.loads(output.read_text()),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
