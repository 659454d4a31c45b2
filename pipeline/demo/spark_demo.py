"""`demo --runner=spark`: bounded runs on a Spark cluster, and parts of it are killed on the way.

Embedded Kafka, a stand-in for BigQuery, a standalone Spark in a folder of its own, and the command
`run`, whose Python workers are processes of Spark's executors. What is killed is killed while those
workers are there.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.demo.demonstration import TOPIC, Demonstration, copies_of, say
from pipeline.demo.destination import BIGQUERY, DemoDestination, demo_destination
from pipeline.demo.embedded_kafka import embedded_kafka
from pipeline.demo.ends_with_parent import ending_with_this_process
from pipeline.interrupt import only_record_signals
from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import STEP_US, GeneratedMessage, MessageGenerator
from runners.java import Unavailable, java_command
from runners.maven import jars_of
from runners.processes import ClusterFailed, send_signal
from runners.spark import version
from runners.spark.cluster import SparkServers
from runners.spark.settings import SparkSettings
from transforms.model.errors import GuaranteeError, TryAgainLater

MESSAGES: Final = 120_000
_HALF: Final = MESSAGES // 2
_OLD_COPIES: Final = 100
_SIZES: Final = SparkSettings(cores=2, max_records_per_run=200_000, cluster=True)
_LOOK_SECONDS: Final = 0.2
_STEP_SECONDS: Final = 240.0


def spark_demo() -> int:
    """0 when the figures in the tables are those of what was sent, else 1.

    Raises GuaranteeError where Java 17 or Maven is missing, or a server does not come up;
    TryAgainLater where this machine is too busy for it.
    """
    # The terminal may be closed: the end is that of SIGTERM, with nothing left behind.
    before = signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        java_command()
        say("Spark and Beam's job server come from Maven Central, the first time only")
        jars_of(version.POM, ending_with_this_process)
        with (
            embedded_kafka() as kafka,
            demo_destination(BIGQUERY) as destination,
            _servers() as spark,
        ):
            demo = SparkDemo(kafka, destination, spark)
            demo.play()
            return demo.verdict()
    except (Unavailable, ClusterFailed) as error:
        raise GuaranteeError(str(error)) from error
    finally:
        signal.signal(signal.SIGHUP, before)


class SparkDemo(Demonstration):
    """Runs twice, kills an executor and then the job server, and compares the tables."""

    def __init__(self, kafka: str, destination: DemoDestination, spark: SparkServers) -> None:
        super().__init__(kafka, destination)
        self._spark = spark
        self._run: subprocess.Popen[bytes] | None = None

    def play(self) -> None:
        """From an empty cluster to tables that are checked. No run is left, however it ends."""
        try:
            self._two_runs()
        finally:
            self._kill_run()
        say("check: has a row been lost, doubled or altered?")
        self.call("check", *self.destination.arguments)

    def _two_runs(self) -> None:
        start_us = time.time_ns() // 1000 - MESSAGES * STEP_US
        say("a Spark cluster starts: a master, two workers, and Beam's job server")
        self._spark.start(_SIZES)
        say(f"{_HALF:,} messages go to Kafka: payments, copies, broken ones, some of the future")
        early = MessageGenerator(
            1, start_us, duplicate_rate=0.015, invalid_rate=0.005, future_rate=0.001
        )
        self._send(early.take(_HALF))
        say("run --runner=SparkRunner")
        self._start_run()
        self._wait("Python workers are at work", lambda: bool(self._spark.python_workers()))
        say("an executor is killed with kill -9, with its Python worker; Spark starts another one")
        send_signal(self._spark.executors()[0], signal.SIGKILL)
        self._wait_for_run()
        self.show_rows("that run has ended, and the tables have")
        say(f"{_HALF:,} more: some are late, and some are copies of what came before")
        later = MessageGenerator(
            2,
            start_us + _HALF * STEP_US,
            duplicate_rate=0.015,
            late_rate=0.002,
            invalid_rate=0.005,
        )
        self._send([*later.take(_HALF - _OLD_COPIES), *copies_of(self.sent, _OLD_COPIES)])
        self._start_run()
        self._wait("Python workers are at work", lambda: bool(self._spark.python_workers()))
        say("Beam's job server is killed with kill -9, and Spark's driver with it")
        self._spark.kill_job_server()
        self.show_rows("nothing of that run is visible")
        say("the job server is started again; the run has waited for it, and begins anew")
        self._spark.start_job_server()
        self._wait_for_run()

    def _send(self, messages: Sequence[GeneratedMessage]) -> None:
        with KafkaSender({"bootstrap.servers": self.servers}) as sender:
            sender.send(TOPIC, messages)
        self.sent += messages

    def _start_run(self) -> None:
        command = [
            sys.executable, "-m", "pipeline", "run", "--runner=SparkRunner",
            f"--job_endpoint={self._spark.job_server_address}", "--environment_type=PROCESS",
            f"--environment_config={self._spark.process_environment}",
            *self.source_and_destination,
        ]  # fmt: skip
        self._run = subprocess.Popen(
            ending_with_this_process(command), stdin=subprocess.DEVNULL, start_new_session=True
        )

    def _kill_run(self) -> None:
        if self._run is not None:
            os.killpg(self._run.pid, signal.SIGKILL)
            self._run.wait()
            self._run = None

    def _wait_for_run(self) -> None:
        assert self._run is not None
        try:
            self.good &= self._run.wait(_STEP_SECONDS) == 0
        except subprocess.TimeoutExpired as late:
            raise TryAgainLater(_late("the run ends")) from late
        self._run = None

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Raises GuaranteeError when the run has ended, TryAgainLater when it does not come."""
        assert self._run is not None
        deadline = time.monotonic() + _STEP_SECONDS
        while not holds():
            if (status := self._run.poll()) is not None:
                raise GuaranteeError(
                    f"run has ended with status {status} before this: {what}. Its own message"
                    " stands above."
                )
            if time.monotonic() > deadline:
                raise TryAgainLater(_late(what))
            time.sleep(_LOOK_SECONDS)


def _late(what: str) -> str:
    return (
        f"waited {_STEP_SECONDS:.0f} s for this: {what}. The machine may be too busy; start the"
        " demo again."
    )


@contextmanager
def _servers() -> Iterator[SparkServers]:
    """Spark that is not started yet, in a new folder; neither is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="payment-pipeline-demo-"))
    servers = SparkServers(folder, launch=ending_with_this_process)
    try:
        yield servers
    finally:
        only_record_signals()  # another Ctrl-C does not stop the end half way
        servers.stop()
        shutil.rmtree(folder)
