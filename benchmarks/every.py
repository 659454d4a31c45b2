"""What bounded runs cost when one follows the other: what they read, and not what the tables hold.

python -m benchmarks.every [messages] [seconds]: a real Kafka broker (Java 17, Maven), one topic of
8 partitions, DuckDB. A run of one message, one transaction beside four, a new process behind them,
ticks of --every, Spark Structured Streaming on the same topic, and the latency at 10,000
messages/s. Everything it prints comes from one run of it. See benchmarks/README.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import duckdb

from benchmarks.direct_run import PARTITIONS, Measured, run, send
from benchmarks.flink_stream import spark_or_reason
from benchmarks.latency import latency, noted_moments
from benchmarks.report import in_words, say, say_ratio
from benchmarks.spark_environment import SparkEnvironment
from benchmarks.spark_stream import drain_with_spark
from benchmarks.steady_load import RATE, WARM_UP_SECONDS, send_steadily
from pipeline.options.run_config import run_config
from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import MessageGenerator
from pipeline.run.every import Since, every_command
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import KafkaBroker, running_broker

TOPIC = "payments"
TICKS = 12
TICK_RECORDS = 1000


def main(messages: int, seconds: int) -> None:
    """Sends the messages, and prints the figures as they come."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    spark = spark_or_reason()
    with tempfile.TemporaryDirectory() as name, running_broker(Path(name) / "broker") as broker:
        folder = Path(name)
        size = send(broker, TOPIC, messages)
        say("messages", f"{messages:,} of {size:.0f} bytes on average, {PARTITIONS} partitions")
        say("cores", f"{os.cpu_count()}")
        _start_up(broker, folder)
        four = _four_beside_one(broker, folder, messages)
        _compare_with_spark(spark, broker, folder / "spark", messages, messages / four)
        _new_process(broker, folder / "0.duckdb")
        _ticks(broker, folder / "1.duckdb")
        for interval in ("1s", "5s"):
            _latency(broker, folder, interval, seconds)


def _start_up(broker: KafkaBroker, folder: Path) -> None:
    send(broker, "one", 1)
    taken = [run(broker, "one", folder / f"start-{number}.duckdb").seconds for number in range(5)]
    say("a run of one message", in_words(taken), "below 1.2 s")
    taken = []
    for _ in range(5):
        started = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "pipeline", "--help"], check=True, capture_output=True
        )
        taken.append(time.monotonic() - started)
    say("--help", in_words(taken), "below 0.4 s")


def _four_beside_one(broker: KafkaBroker, folder: Path, messages: int) -> float:
    """Seconds of four transactions. Each twice, since one run differs from the next by a tenth."""
    seconds = {1: 0.0, 4: 0.0}
    for number, transactions in enumerate((1, 4, 4, 1)):
        found = _whole(broker, folder / f"{number}.duckdb", messages, transactions)
        seconds[transactions] += found.seconds / 2
    say("", f"{seconds[4] / seconds[1]:.2f} times as long", "at most 1.1 times")
    return seconds[4]


def _whole(broker: KafkaBroker, database: Path, messages: int, transactions: int) -> Measured:
    at_once = f"--max_records_per_run={-(-messages // transactions)}"
    found = run(broker, TOPIC, database, at_once)
    say(
        f"{found.summary['transactions']} transaction(s)",
        f"{messages / found.seconds:,.0f} messages/s, start-up included;"
        f" {found.cpu / messages * 1e6:.2f} us of CPU a message, {found.peak / 1e9:.2f} GB",
    )
    return found


def _compare_with_spark(
    spark: SparkEnvironment | str, broker: KafkaBroker, folder: Path, messages: int, rate: float
) -> None:
    """Spark's rate is without its start, ours with it."""
    if isinstance(spark, str):
        say("Spark Structured Streaming", f"NOT MEASURED: {spark}")
        return
    found = drain_with_spark(spark, broker, TOPIC, messages, folder)
    say("Spark Structured Streaming", f"{found.rate:,.0f} messages/s; rows are discarded")
    say_ratio(rate, found.rate, "of Spark, four transactions", 2.0)


def _new_process(broker: KafkaBroker, database: Path) -> None:
    """A run of a few records that begins with the ids of the files, then with the tables'."""
    generator = MessageGenerator(3, time.time_ns() // 1000 - 1_000_000)
    for name, options in (("--state_dir", ()), ("the tables", ("--state_dir=none",))):
        _send(broker, generator, 8)
        found = run(broker, TOPIC, database, *options)
        say(
            f"a new process, ids from {name}",
            f"{found.seconds:.1f} s, {found.cpu:.1f} s of CPU, {found.peak / 1e9:.2f} GB,"
            f" {found.summary['live_ids']:,} live ids",
        )
    files = Path(f"{database}.ids").iterdir()
    size = sum(file.stat().st_size for file in files)
    say("--state_dir", f"{size / found.summary['live_ids']:.1f} bytes/live id", "about 10")


def _ticks(broker: KafkaBroker, database: Path) -> None:
    """Ticks in this process, by turns with nothing new and with some records."""
    generator = MessageGenerator(4, time.time_ns() // 1000 - 1_000_000)
    taken: list[list[float]] = [[], []]
    before = [time.process_time()]

    def sleep(_: float) -> None:
        number = sum(map(len, taken))
        taken[number % 2].append(time.process_time() - before[0])
        if number == 2 * TICKS:
            raise KeyboardInterrupt
        if number % 2:
            _send(broker, generator, TICK_RECORDS)
        before[0] = time.process_time()

    flags = [f"--bootstrap_servers={broker.bootstrap_servers}", f"--topic={TOPIC}", "--every=1s"]
    config = run_config([*flags, f"--destination=duckdb:{database}"])
    with suppress(KeyboardInterrupt):
        every_command(config, Since(), sleep=sleep)
    # The first of each has what only the first run of a process has to do.
    records, empty = (sorted(each[1:]) for each in taken)
    say("a tick with nothing new", f"{_middle(empty) * 1000:.0f} ms of CPU", "below 50 ms")
    say(
        f"a tick of {TICK_RECORDS:,} records",
        f"{_middle(records) * 1000:.0f} ms of CPU, at most {records[-1] * 1000:.0f}",
        "below 400 ms",
    )


def _latency(broker: KafkaBroker, folder: Path, interval: str, seconds: int) -> None:
    topic, database = f"steady-{interval}", folder / f"{interval}.duckdb"
    moments = folder / f"{interval}.moments"
    send(broker, topic, PARTITIONS)
    command = [
        sys.executable, "-m", "benchmarks.timed_run", str(moments), "run",
        f"--bootstrap_servers={broker.bootstrap_servers}", f"--topic={topic}",
        f"--destination=duckdb:{database}", f"--every={interval}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(ending_with_this_process(command), stdout=log, stderr=log)
        try:
            sent = send_steadily(broker, topic, seconds)
            _wait(lambda: moments.exists(), process)
        finally:
            process.terminate()
            process.wait(60)
    noted = noted_moments(moments)
    with duckdb.connect(str(database)) as tables:
        (began_us,) = tables.execute(
            "SELECT epoch_us(min(kafka_timestamp)) FROM payment_transactions"
        ).fetchall()[0]
        warm_us = began_us + WARM_UP_SECONDS * 1_000_000
        found = latency(tables, "payment_transactions", noted, warm_us)
    say(
        f"latency at {RATE:,}/s, --every={interval}",
        f"{found}; sent {sent:,.0f}/s, {len(noted)} transactions",
        "below 30 s",
    )


def _wait(done: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """At most a minute; raises RuntimeError where the process has ended, or it takes longer."""
    for _ in range(600):
        if done():
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("the run did not do what it had to")


def _send(broker: KafkaBroker, generator: MessageGenerator, messages: int) -> None:
    with KafkaSender({"bootstrap.servers": broker.bootstrap_servers}) as sender:
        sender.send(TOPIC, generator.take(messages))


def _middle(values: list[float]) -> float:
    return values[len(values) // 2]


if __name__ == "__main__":
    main(
        int(sys.argv[1]) if len(sys.argv) > 1 else 4_000_000,
        int(sys.argv[2]) if len(sys.argv) > 2 else 60,
    )
