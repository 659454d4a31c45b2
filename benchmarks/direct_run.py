"""How fast `run` is on DirectRunner, beside what the same machine can do at all. See benchmarks/README.md.

python -m benchmarks.direct_run [messages]: a real Kafka broker (Java 17, Maven), one topic of 8 partitions, messages of about 250 bytes,
2 % copies. Everything it prints comes from one run of it.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.message_generator import MessageGenerator
from pipeline.produce import KafkaSender
from tests.kafka_broker import KafkaBroker, running_broker

PARTITIONS = 8
PER_KEY_SHARE = 200  # per_key gets one message of so many: it does a few hundred a second
_BATCH = 20_000


def main(messages: int) -> None:
    with tempfile.TemporaryDirectory() as folder, running_broker(Path(folder) / "broker") as broker:
        send(broker, "payments", messages)
        send(broker, "few", messages // PER_KEY_SHARE)
        bare = consume_bare(broker, messages)
        print(f"bare consume() loop           {messages / bare:>12,.0f} messages/s")
        before = cpu_of_children()
        whole, summary = run(broker, "payments", Path(folder) / "bench.duckdb")
        cpu = cpu_of_children() - before
        empty, _ = run(broker, "payments", Path(folder) / "bench.duckdb")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        print(
            f"run, with start-up            {messages / whole:>12,.0f} messages/s   {whole:.1f} s, {messages / whole * bare / messages:.2f} of bare"
        )
        print(
            f"run, without start-up         {messages / (whole - empty):>12,.0f} messages/s   start-up {empty:.1f} s (a run without new messages)"
        )
        print(f"CPU of run, start-up included {cpu / messages * 1e6:>12.2f} microseconds/message")
        print(f"peak memory of run            {peak:>12.2f} GB")
        print(f"accepted {summary['accepted']:,}, duplicates {summary['duplicates']:,}, state {summary['state_bytes']:,} bytes")
        few, _ = run(broker, "few", Path(folder) / "per_key.duckdb", "--dedup_layout=per_key")
        sharded, _ = run(broker, "few", Path(folder) / "sharded.duckdb")
        count = messages // PER_KEY_SHARE
        print(f"per_key, {count:,} messages      {count / few:>12,.0f} messages/s   sharded on the same ones {count / sharded:,.0f}")


def send(broker: KafkaBroker, topic: str, messages: int) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config={"retention.ms": "-1"})])[topic].result(30)
    generator = MessageGenerator(1, time.time_ns() // 1000 - messages * 1000, duplicate_rate=0.02)
    with KafkaSender({"bootstrap.servers": broker.bootstrap_servers, "compression.type": "lz4"}) as sender:
        for start in range(0, messages, _BATCH):
            sender.send(topic, generator.take(min(_BATCH, messages - start)))


def consume_bare(broker: KafkaBroker, messages: int) -> float:
    """Seconds of a loop that reads every value and does nothing."""
    settings = {"bootstrap.servers": broker.bootstrap_servers, "group.id": "bare", "queued.min.messages": 1_000_000}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition("payments", partition, 0) for partition in range(PARTITIONS)])
    left, started = messages, time.monotonic()
    while left:
        left -= len([message.value() for message in consumer.consume(5000, 1)])
    seconds = time.monotonic() - started
    consumer.close()
    return seconds


def run(broker: KafkaBroker, topic: str, database: Path, *options: str) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole process, and its summary."""
    where = [f"--bootstrap_servers={broker.bootstrap_servers}", f"--topic={topic}", f"--destination=duckdb:{database}"]
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-m", "pipeline", "run", *where, "--json", *options], check=True, stdout=subprocess.PIPE)
    return time.monotonic() - started, json.loads(done.stdout)


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
