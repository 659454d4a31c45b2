"""How fast a streaming job on Flink is, and how late a payment is in the table.

python -m benchmarks.flink_stream [messages] [seconds]: a real Kafka broker and a real Flink cluster
(Java 17, Maven) on this machine. Jobs drain a topic of 8 partitions: one worker process (LOOPBACK)
into DuckDB, two (EXTERNAL) into a stand-in for BigQuery; then a job gets 10,000 messages/s for so
many seconds, and Spark Structured Streaming drains the same topic. Everything it prints comes from
one run of it. See benchmarks/README.md.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.direct_run import PARTITIONS, consume_bare, send
from benchmarks.discarding_stand_in import DATASET, PROJECT, discarding_stand_in
from benchmarks.report import say, say_ratio
from benchmarks.spark_environment import SparkEnvironment, spark_environment
from benchmarks.spark_stream import drain_with_spark
from benchmarks.steady_load import (
    RATE,
    WARM_UP_SECONDS,
    latency_in_words,
    send_steadily,
    since,
)
from benchmarks.streaming_job import cpu_seconds, drain, running_job
from pipeline.streaming.figures import JobFigures
from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import ClusterSettings
from runners.flink.servers import TASK_MANAGER
from runners.java import Unavailable
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import KafkaBroker, running_broker
from transforms import metrics

TOPIC, FEW, STEADY = "payments", "few", "steady"
PROCESSES = 2

_CLUSTER = ClusterSettings(slots=PROCESSES, worker_pools=1, managed_mib=256 * PROCESSES)


def main(messages: int, seconds: int) -> None:
    """Sends the messages, runs one job after the other, and prints the figures."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    spark = spark_or_reason()
    with tempfile.TemporaryDirectory() as folder, running_broker(Path(folder) / "broker") as broker:
        size = send(broker, TOPIC, messages)
        for topic in (FEW, STEADY):
            send(broker, topic, PARTITIONS)
        say("messages", f"{messages:,} of {size:.0f} bytes on average, {PARTITIONS} partitions")
        say("cores", f"{os.cpu_count()}")
        bare = messages / consume_bare(broker, messages)
        say("bare consume() loop", f"{bare:,.0f} messages/s")
        with running_cluster(Path(folder, "flink")) as cluster:
            jobs = Jobs(Path(folder), broker, cluster, messages)
            one = jobs.drain_with_one_process()
            say_ratio(one, bare, "of the bare loop", 0.30)
            jobs.show_steps()
            two = jobs.drain_with_two_processes()
            say_ratio(two, bare, "of the bare loop", 0.42)
            jobs.show_latency(seconds)
        compare_with_spark(spark, broker, Path(folder, "spark"), messages, one, two)


def spark_or_reason() -> SparkEnvironment | str:
    """Fetched before anything is measured. Without it the other figures are still worth having."""
    try:
        return spark_environment()
    except Unavailable as missing:
        return str(missing)


@contextmanager
def running_cluster(folder: Path, settings: ClusterSettings = _CLUSTER) -> Iterator[FlinkCluster]:
    """A cluster, by default with a slot for each process, which ends with the context."""
    cluster = FlinkCluster(folder, launch=ending_with_this_process)
    cluster.start(settings)
    try:
        yield cluster
    finally:
        cluster.stop()


class Jobs:
    """The jobs on Flink, one after the other. Each method prints its figures."""

    def __init__(
        self, folder: Path, broker: KafkaBroker, cluster: FlinkCluster, messages: int
    ) -> None:
        self._folder = folder
        self._broker = broker
        self._cluster = cluster
        self._messages = messages

    def drain_with_one_process(self) -> float | None:
        """Rate into DuckDB, in messages a second; None: too few messages to tell."""
        with running_job(self._cluster, self._broker, FEW, self._folder / FEW) as job:
            drain(job, PARTITIONS)
            start_up = cpu_seconds(job.pid)
        before = self._java_cpu()
        with running_job(self._cluster, self._broker, TOPIC, self._folder / "one") as job:
            rate = drain(job, self._messages)
            worker, java = cpu_seconds(job.pid) - start_up, self._java_cpu() - before
            figures, state = job.figures(), job.state_bytes()
        say(
            "drain, one process into DuckDB",
            f"{_in_words(rate)}, {figures.of(metrics.ACCEPTED):,} accepted",
        )
        each = f"{worker / self._messages * 1e6:.2f} us/message after start-up"
        say("CPU of the worker, all threads", each, "at most 6.5")
        each = f"{java / self._messages * 1e6:.2f} us/message, the job's start included"
        say("CPU of the TaskManager (Java)", each)
        live = figures.live_ids
        say("checkpoint", f"{state / live:.2f} bytes/live id, {live:,} ids", "at most 11")
        return rate

    def show_steps(self) -> None:
        """CPU by step, from a job of its own: its clocks take time as well."""
        clocks = self._folder / "clocks.json"
        program = "benchmarks.measured_stream", str(clocks)
        folder = self._folder / "clocks"
        with running_job(self._cluster, self._broker, TOPIC, folder, program=program) as job:
            drain(job, self._messages)
            os.kill(job.pid, signal.SIGUSR1)
            job.wait_for("the clocks", clocks.exists)
        say("CPU of one more worker, by step", "us/message, the clocks' own cost included")
        for step, seconds in json.loads(clocks.read_text()).items():
            say(f"    {step}", f"{seconds / self._messages * 1e6:6.2f}")

    def drain_with_two_processes(self) -> float | None:
        """Rate into a stand-in that discards rows, in messages a second; None as above."""
        place = self._folder / "two"
        with discarding_stand_in(self._folder) as ready:
            flags = (
                "--environment_type=EXTERNAL",
                f"--environment_config={self._cluster.worker_pool_addresses[0]}",
                f"--parallelism={PROCESSES}",
                f"--sdk_worker_parallelism={PROCESSES}",
                f"--destination=bigquery:{PROJECT}.{DATASET}",
                f"--bigquery_api_endpoint={ready['rest_endpoint']}",
                f"--bigquery_storage_endpoint={ready['storage_endpoint']}",
            )
            with running_job(self._cluster, self._broker, TOPIC, place, flags) as job:
                rate = drain(job, self._messages)
                workers = len(self._cluster.workers())
        say("drain, two processes", f"{_in_words(rate)}, {workers} processes; rows are discarded")
        return rate

    def show_latency(self, seconds: int) -> None:
        """From Kafka's timestamp of a payment to its acknowledged append, at the users' load."""
        warm: list[JobFigures] = []
        with running_job(self._cluster, self._broker, STEADY, self._folder / STEADY) as job:
            sent = send_steadily(self._broker, STEADY, seconds, lambda: warm.append(job.figures()))
            job.wait_until_read(PARTITIONS, 600)
            whole = job.figures()
        say(
            f"latency at {RATE:,}/s",
            f"Kafka's timestamp to acknowledged append; sent {sent:,.0f}/s",
        )
        for name, figures, p50, p99 in (
            (f"    {seconds} s after the warm-up", since(warm[0], whole), "500", "900"),
            (f"    with the first {WARM_UP_SECONDS} s", whole, "", ""),
        ):
            for share, most in ((0.5, p50), (0.99, p99)):
                found = latency_in_words(figures, share)
                say(f"{name}, p{share * 100:.0f}", found, most and f"below {most} ms")

    def _java_cpu(self) -> float:
        """CPU seconds of the TaskManager so far."""
        return sum(cpu_seconds(each.pid) for each in self._cluster.running(TASK_MANAGER))


def compare_with_spark(
    spark: SparkEnvironment | str,
    broker: KafkaBroker,
    folder: Path,
    messages: int,
    one: float | None,
    two: float | None,
) -> None:
    """Spark drains the topic, while no Flink runs. spark: or why there is none."""
    if isinstance(spark, str):
        say("Spark Structured Streaming", f"NOT MEASURED: {spark}")
        return
    found = drain_with_spark(spark, broker, TOPIC, messages, folder)
    say(
        "Spark Structured Streaming",
        f"{found.rate:,.0f} messages/s, {found.batches} micro-batches,"
        f" {found.accepted:,} accepted; rows are discarded",
    )
    say_ratio(one, found.rate, "of Spark, one process", 1.2)
    say_ratio(two, found.rate, "of Spark, two processes", 1.6)


def _in_words(rate: float | None) -> str:
    return "no rate: too few messages" if rate is None else f"{rate:,.0f} messages/s"


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 4_000_000,
        int(sys.argv[2]) if len(sys.argv) > 2 else 60,
    )
