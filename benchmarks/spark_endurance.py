"""Whether `run --every` on Spark stays exact, fast and small while parts of it are killed.

python -m benchmarks.spark_endurance [minutes] [kills] [seed] [duckdb|bigquery] [rate]: a real Kafka
broker and Beam's job server with Spark in it (Java 17, Maven), messages with 2 % copies all the
while; first a quiet phase, then kills at random moments. duckdb: 10,000 messages/s, LOOPBACK.
bigquery: into the stand-in, PROCESS workers on a cluster, at the rate that those two can do. Exit
status 1 where something was lost or doubled, or the client has ended by itself. See
benchmarks/README.md.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks.direct_run import create_topic
from benchmarks.group_lag import GroupLag
from benchmarks.killed_job import KilledJob
from benchmarks.latency import latency, noted_moments
from benchmarks.random_kills import CLIENT, EXECUTOR, JOB_SERVER, WORKER, Fault, faults_of
from benchmarks.report import say
from benchmarks.steady_load import RATE, WARM_UP_SECONDS, send_steadily
from benchmarks.whole_topic import STORED, copy_rows, copy_topic, create_tables, differences
from pipeline import cli
from pipeline.demo.destination import BIGQUERY, DUCKDB, DemoDestination, demo_destination
from runners.spark.cluster import SparkServers
from runners.spark.settings import SparkSettings
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import KafkaBroker, running_broker
from tests.support.spark_command import SparkCommand
from transforms.destinations.open import open_destination

TOPIC = "steady"
HORIZON = "2m"
"""So that ids expire within the measurement, and it is seen what stays."""

_STAND_IN_RATE = 500
_QUIET_SHARE = 5
_SETTLE_SECONDS = 10.0
"""Between the end of the quiet phase and the first kill: what was sent in it becomes visible."""

_COLUMNS = "minute  sent        lag       transactions  client MB  job server MB  starts  faults"


@dataclass(frozen=True)
class Mode:
    """How a kind of destination is run. rate: messages a second. victims: what is killed."""

    stored: DemoDestination
    rate: int
    every: str
    victims: Sequence[str]
    processes: bool

    @property
    def settings(self) -> SparkSettings:
        """Of Spark."""
        return SparkSettings(cluster=self.processes)

    def flags(self, servers: SparkServers) -> list[str]:
        """Of `run`."""
        workers = ["--environment_type=PROCESS"] if self.processes else []
        command = [f"--environment_config={servers.process_environment}"] if self.processes else []
        return [f"--dedup_horizon={HORIZON}", *workers, *command]


class Load:
    """Sends in a thread, and knows what it has sent. kinds: messages by kind."""

    def __init__(self, broker: KafkaBroker, seconds: int, rate: int) -> None:
        self.kinds: Counter[str] = Counter()
        self._reached: float | None = None

        def send() -> None:
            self._reached = send_steadily(
                broker, TOPIC, seconds - WARM_UP_SECONDS, rate=rate,
                sent=lambda messages: self.kinds.update(message.kind for message in messages),
            )  # fmt: skip

        self._thread = threading.Thread(target=send, name="sender", daemon=True)
        self._thread.start()

    @property
    def sends(self) -> bool:
        """Whether it still does."""
        return self._thread.is_alive()

    @property
    def reached(self) -> float:
        """Messages a second, once it does not send any more."""
        if self._reached is None:
            raise RuntimeError("the sender has failed; its own message stands above")
        return self._reached


def main(minutes: int, kills: int, seed: int, kind: str, rate: int) -> int:
    """Prints the figures as they come; the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(prefix="payment-pipeline-endurance-"))
    print(f"{minutes} minutes, {kills} kills, seed {seed}, {kind}; logs in {folder}", flush=True)
    with running_broker(folder / "broker") as broker, _mode(kind, rate, folder) as mode:
        create_topic(broker, TOPIC)
        servers = SparkServers(folder / "spark", launch=ending_with_this_process)
        servers.start(mode.settings)
        moments = folder / "moments"
        program = "benchmarks.timed_run", str(moments)
        command = SparkCommand(
            servers, broker.bootstrap_servers, TOPIC, mode.stored.arguments, folder / "commands",
            program=program,
        )  # fmt: skip
        try:
            flags = mode.flags(servers)
            job = KilledJob(servers, command, [f"--every={mode.every}", *flags], moments, seed)
            load, phases = _play(broker, mode, job, minutes * 60, kills, seed)
            status = job.end()
            say("SIGTERM to the client", f"status {status}", "143")
            status = command.start(*flags).wait(600)
            say("one run to the end", f"status {status}", "0")
        finally:
            command.kill()
            servers.stop()
        wrong = _judge(broker, mode, job, load, phases, folder)
    if status or wrong or job.ended_by_itself:
        print(f"WRONG; everything is kept: {folder}")
        return 1
    shutil.rmtree(folder)
    print("nothing is lost, and nothing is there twice")
    return 0


@dataclass(frozen=True)
class Phases:
    """When they began, microseconds since 1970."""

    warm: int
    kills: int


def _play(
    broker: KafkaBroker, mode: Mode, job: KilledJob, seconds: int, kills: int, seed: int
) -> tuple[Load, Phases]:
    started = time.monotonic()
    quiet = WARM_UP_SECONDS + seconds // _QUIET_SHARE if kills else seconds
    first = quiet + _SETTLE_SECONDS
    began_us = time.time_ns() // 1000
    phases = Phases(began_us + WARM_UP_SECONDS * 1_000_000, began_us + quiet * 1_000_000)
    load = Load(broker, seconds, mode.rate)
    print(f"{mode.rate:,} messages/s, --every={mode.every}, horizon {HORIZON}\n{_COLUMNS}")
    faults: Iterator[Fault | None] = iter(faults_of(seed, kills, seconds - first, mode.victims))
    fault, minute = next(faults, None), 1
    with closing(GroupLag(broker.bootstrap_servers, TOPIC)) as lag:
        while load.sends or fault:
            next_fault = started + (first + fault.after if fault else seconds)
            job.watch_until(min(next_fault, started + 60 * minute, time.monotonic() + 1))
            if time.monotonic() >= started + 60 * minute:
                print(_line(minute, load, lag, job), flush=True)
                # What is done to a process may take more than a minute.
                minute = int(time.monotonic() - started) // 60 + 1
            if fault and time.monotonic() >= next_fault:
                job.do(fault)
                fault = next(faults, None)
        say("sent", f"{load.kinds.total():,} messages, {load.reached:,.0f}/s")
        while lag.now():
            job.watch_until(time.monotonic() + 1)
        print(_line(minute, load, lag, job), flush=True)
    return load, phases


def _line(minute: int, load: Load, lag: GroupLag, job: KilledJob) -> str:
    """The figures of a minute, in the order of _COLUMNS; of memory the most in it."""
    return (
        f"{minute:>6}  {load.kinds.total():<10,}  {lag.now():<8,}  {job.transactions:<12}"
        f"  {job.peak_bytes(CLIENT) / 1e6:<9.0f}  {job.peak_bytes(JOB_SERVER) / 1e6:<13.0f}"
        f"  {job.starts:<6}  {len(job.faults_done)}"
    )


def _judge(
    broker: KafkaBroker, mode: Mode, job: KilledJob, load: Load, phases: Phases, folder: Path
) -> dict[str, int]:
    """Says latency and what `check` says; what is not as it was sent."""
    with duckdb.connect(str(folder / "oracle.duckdb")) as tables:
        create_tables(tables)
        copy_topic(tables, broker.bootstrap_servers, TOPIC)
        copy_rows(tables, mode.stored)
        moments = noted_moments(folder / "moments")
        quiet = latency(tables, STORED, moments, phases.warm, phases.kills)
        say("latency, quiet phase", f"{quiet} of {quiet.rows:,} messages", "p99 below 8 s")
        if job.faults_done:
            killed = latency(tables, STORED, moments, phases.kills)
            say("latency, phase of the kills", f"{killed}, longest {killed.longest:.1f} s", "30 s")
        if back := sorted(job.seconds_back()):
            figure = f"{back[len(back) // 2]:.1f} s, longest {back[-1]:.1f} s"
            say("next commit behind a fault, median", figure)
        wrong = differences(tables, load.kinds)
    for what, number in wrong.items():
        say(what, f"{number:,}", "0")
    say("clients", f"{job.starts} starts, ended by themselves: {job.ended_by_itself or 'none'}")
    if cli.main(["check", *mode.stored.arguments, "--max_duplicate_rate=0.05"]):
        wrong["failed checks"] = 1
    return wrong


@contextmanager
def _mode(kind: str, rate: int, folder: Path) -> Iterator[Mode]:
    if kind == DUCKDB:
        url = f"duckdb:{folder / 'payments.duckdb'}"
        stored = DemoDestination((f"--destination={url}",), open_destination(url), ())
        yield Mode(stored, rate or RATE, "5s", (CLIENT, JOB_SERVER), processes=False)
        return
    with demo_destination(BIGQUERY) as stored:
        victims = (CLIENT, JOB_SERVER, EXECUTOR, WORKER)
        yield Mode(stored, rate or _STAND_IN_RATE, "10s", victims, processes=True)


if __name__ == "__main__":
    given = [*sys.argv[1:], *("10", "20", "1", DUCKDB, "0")[len(sys.argv) - 1 :]]
    sys.exit(main(int(given[0]), int(given[1]), int(given[2]), given[3], int(given[4])))
