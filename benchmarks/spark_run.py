"""A bounded run on Spark beside the same run on DirectRunner, and beside Structured Streaming.

python -m benchmarks.spark_run [messages]: a real Kafka broker, Beam's job server with Spark in it
(Java 17, Maven), LOOPBACK workers, DuckDB. Two runs of all messages on each runner, by turns, then
ticks of `--every` on Spark, then Spark Structured Streaming on the same topic. Everything it prints
comes from one run of it. See benchmarks/README.md.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.direct_run import PARTITIONS, Measured, run, send
from benchmarks.flink_stream import spark_or_reason
from benchmarks.report import in_words, say, say_ratio
from benchmarks.spark_stream import drain_with_spark
from pipeline.options.run_config import run_config
from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import MessageGenerator
from pipeline.run.every import Since, every_command
from runners.spark.cluster import SparkServers
from runners.spark.settings import SparkSettings
from runners.worker_end import end_worker
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import KafkaBroker, running_broker

TOPIC = "payments"
TICKS = 160
SHOWN = 20
"""Of the first ones and the last ones: Java becomes warm between them."""
TICK_RECORDS = 1000
_WORKER_SECONDS = 30.0


def main(messages: int) -> None:
    """Sends the messages, and prints the figures as they come."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    structured_streaming = spark_or_reason()
    with tempfile.TemporaryDirectory() as name, running_broker(Path(name) / "broker") as broker:
        folder = Path(name)
        size = send(broker, TOPIC, messages)
        send(broker, "one", 1)
        say("messages", f"{messages:,} of {size:.0f} bytes on average, {PARTITIONS} partitions")
        say("cores", f"{os.cpu_count()}")
        whole = f"--max_records_per_run={messages}"
        servers = SparkServers(folder / "spark-cluster", launch=ending_with_this_process)
        servers.start(SparkSettings(cores=os.cpu_count() or 1, max_records_per_run=messages))
        try:
            spark = ("--runner=SparkRunner", f"--job_endpoint={servers.job_server_address}")
            run(broker, "one", folder / "one.duckdb", *spark)
            # In the first one, Java compiles what the second one begins with.
            for turn in ("first", "second"):
                at_once = run(broker, TOPIC, folder / f"direct-{turn}.duckdb", whole)
                direct = _said(f"the {turn} run on DirectRunner", at_once, messages)
                database = folder / f"spark-{turn}.duckdb"
                found = run(broker, TOPIC, database, whole, *spark)
                on_spark = _said(f"the server's {turn} run on Spark", found, messages)
                say_ratio(messages / on_spark, messages / direct, "of DirectRunner", 0.95)
            _ticks(broker, database, spark)
            # Spark keeps it for the next run, for some seconds: a server that is away then breaks
            # its connection, and it says so at length.
            end_worker(_WORKER_SECONDS)
        finally:
            servers.stop()
        if isinstance(structured_streaming, str):
            say("Spark Structured Streaming", f"NOT MEASURED: {structured_streaming}")
            return
        drain = drain_with_spark(structured_streaming, broker, TOPIC, messages, folder / "drain")
        say("Spark Structured Streaming", f"{drain.rate:,.0f} messages/s; rows are discarded")
        say_ratio(messages / on_spark, drain.rate, "of Structured Streaming", 1.0)


def _said(name: str, found: Measured, messages: int) -> float:
    """Says what a run took; its seconds."""
    say(
        name,
        f"{messages / found.seconds:,.0f} messages/s, start-up included; of Python"
        f" {found.cpu / messages * 1e6:.2f} us of CPU a message, {found.peak / 1e9:.2f} GB",
    )
    return found.seconds


def _ticks(broker: KafkaBroker, database: Path, spark: tuple[str, ...]) -> None:
    """Ticks in this process, each with some records."""
    generator = MessageGenerator(4, time.time_ns() // 1000 - 1_000_000)
    taken: list[float] = []
    before = [time.monotonic()]

    def sleep(_: float) -> None:
        taken.append(time.monotonic() - before[0])
        if len(taken) > TICKS:
            raise KeyboardInterrupt
        with KafkaSender({"bootstrap.servers": broker.bootstrap_servers}) as sender:
            sender.send(TOPIC, generator.take(TICK_RECORDS))
        before[0] = time.monotonic()

    flags = [f"--bootstrap_servers={broker.bootstrap_servers}", f"--topic={TOPIC}", "--every=1s"]
    config = run_config([*flags, f"--destination=duckdb:{database}", *spark])
    with suppress(KeyboardInterrupt):
        every_command(config, Since(), sleep=sleep)
    # The first of them loads the ids, and has what only the first run of a process has to do.
    first, warm = taken[1 : SHOWN + 1], taken[-SHOWN:]
    for name, some, most in (
        (f"a tick of {TICK_RECORDS:,} records on Spark", warm, "below 0.7 s"),
        ("    the first ones", first, ""),
    ):
        say(name, in_words(some), most)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4_000_000)
