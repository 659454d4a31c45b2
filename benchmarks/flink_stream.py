"""How fast a streaming job on Flink is, and how late a payment is in the table.

python -m benchmarks.flink_stream [messages] [seconds]: a real Kafka broker and a real Flink cluster
(Java 17, Maven) on this machine, one worker process (LOOPBACK) into DuckDB. It drains a topic of 8
partitions, then reads 10,000 messages/s for so many seconds. Everything it prints comes from one
run of it. See benchmarks/README.md.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.direct_run import PARTITIONS, consume_bare, send
from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import MessageGenerator
from pipeline.streaming.figures import JobFigures
from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import ClusterSettings
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import KafkaBroker, running_broker
from tests.support.streaming_command import StreamingCommand
from transforms.destinations.open import open_destination

RATE = 10_000
"""Messages a second while latency is measured: the users' load."""

_SLICE_SECONDS = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Job:
    """What a job took. cpu: seconds of the worker process, from its start until all was read.

    written: (rows, seconds between the first and the last batch of rows). figures: counters at the
    end. checkpoint: bytes of the state in the last checkpoint.
    """

    cpu: float
    written: tuple[int, float]
    figures: JobFigures
    checkpoint: int


def main(messages: int, seconds: int) -> None:
    """Sends the messages, runs the jobs one after the other, and prints the figures."""
    with tempfile.TemporaryDirectory() as folder, running_broker(Path(folder) / "broker") as broker:
        cluster = FlinkCluster(Path(folder, "flink"), launch=ending_with_this_process)
        cluster.start(ClusterSettings(slots=1))
        try:
            measure(Path(folder), broker, cluster, messages, seconds)
        finally:
            cluster.stop()


def measure(
    folder: Path, broker: KafkaBroker, cluster: FlinkCluster, messages: int, seconds: int
) -> None:
    """Everything that is printed."""
    size = send(broker, "payments", messages)
    for topic in ("one", "steady"):
        send(broker, topic, PARTITIONS)
    print(
        f"{messages:,} messages of {size:.0f} bytes on average, {PARTITIONS} partitions,"
        f" {os.cpu_count()} cores"
    )
    bare = messages / consume_bare(broker, messages)
    print(f"bare consume() loop       {bare:>10,.0f} messages/s")
    start_up = job(folder, broker, cluster, "one").cpu
    drained = job(folder, broker, cluster, "payments")
    rows, took = drained.written
    print(
        f"drain, one process        {rows / took:>10,.0f} messages/s   {rows / took / bare:.2f} of"
        " bare"
    )
    print(
        f"CPU after start-up        {(drained.cpu - start_up) / rows * 1e6:>10.2f}"
        " microseconds/message, all threads of the worker"
    )
    live = drained.figures.live_ids
    print(
        f"checkpoint                {drained.checkpoint / live:>10.2f} bytes/live id, {live:,} ids"
    )
    steady = job(folder, broker, cluster, "steady", lambda: send_steadily(broker, seconds))
    p50, p99 = (steady.figures.latency_ms(share) for share in (0.5, 0.99))
    print(
        f"at {RATE:,}/s for {seconds} s    Kafka's timestamp to acknowledged append: p50 up"
        f" to {p50} ms, p99 up to {p99} ms"
    )


def job(
    folder: Path, broker: KafkaBroker, cluster: FlinkCluster, topic: str, feed: Any = None
) -> Job:
    """Runs a job on a topic until everything is read. feed: sends while it runs."""
    place = folder / f"job-{topic}"
    place.mkdir()
    command = StreamingCommand(cluster, broker.bootstrap_servers, topic, place, checkpoint_ms=2000)
    try:
        command.start()
        if feed is not None:
            feed()
        command.wait_until_read(PARTITIONS, seconds=600)
        cpu = cpu_seconds(command.pid)
        figures, checkpoint = command.figures(), command.state_bytes()
        command.interrupt()
    finally:
        command.kill()
    with open_destination(f"duckdb:{command.file}") as destination:
        (found,) = destination.query(
            "SELECT COUNT(*) AS n, MIN(epoch_us(ingest_time)) AS first,"
            " MAX(epoch_us(ingest_time)) AS last FROM payment_transactions"
        ).to_pylist()
    took = (found["last"] - found["first"]) / 1_000_000
    return Job(cpu, (found["n"], took), figures, checkpoint)


def send_steadily(broker: KafkaBroker, seconds: int) -> None:
    """Sends RATE messages a second, evenly, each with the event time of its sending."""
    now_us = time.time_ns() // 1000
    generator = MessageGenerator(2, now_us, duplicate_rate=0.02, step_us=1_000_000 // RATE)
    each = int(RATE * _SLICE_SECONDS)
    with steady_sender(broker) as sender:
        started = time.monotonic()
        for number in range(int(seconds / _SLICE_SECONDS)):
            sender.send("steady", generator.take(each))
            ahead = started + (number + 1) * _SLICE_SECONDS - time.monotonic()
            time.sleep(max(0.0, ahead))


@contextmanager
def steady_sender(broker: KafkaBroker) -> Any:
    """A sender that does not keep messages back."""
    with KafkaSender({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": "1"}) as sender:
        yield sender


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICKS


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000,
        int(sys.argv[2]) if len(sys.argv) > 2 else 60,
    )
