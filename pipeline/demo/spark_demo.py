"""`demo --runner=spark`: bounded runs on a Spark cluster, and parts of it are killed on the way.

Embedded Kafka, a stand-in for BigQuery, a standalone Spark in a folder of its own, and the command
`run`, whose Python workers are processes of Spark's executors. What is killed is killed while those
workers are there.
"""

from __future__ import annotations

import signal
import subprocess
import time
from typing import Final

from pipeline.demo.cluster_demo import ClusterDemo, play_on_cluster, too_late
from pipeline.demo.demonstration import copies_of, early_messages, later_messages, say
from pipeline.demo.destination import BIGQUERY, DemoDestination
from pipeline.produce.message_generator import STEP_US
from runners.processes import send_signal
from runners.spark import version
from runners.spark.cluster import SparkServers
from runners.spark.settings import SparkSettings

MESSAGES: Final = 120_000
_HALF: Final = MESSAGES // 2
_OLD_COPIES: Final = 100
_SIZES: Final = SparkSettings(cores=2, max_records_per_run=200_000, cluster=True)


def spark_demo() -> int:
    """0 when the figures in the tables are those of what was sent, else 1.

    Raises GuaranteeError where Java 17 or Maven is missing, or a server does not come up;
    TryAgainLater where this machine is too busy for it.
    """
    return play_on_cluster("Spark", version.POM, BIGQUERY, SparkServers, SparkDemo)


class SparkDemo(ClusterDemo):
    """Runs twice, kills an executor and then the job server, and compares the tables."""

    def __init__(self, kafka: str, destination: DemoDestination, spark: SparkServers) -> None:
        super().__init__(kafka, destination)
        self._spark = spark

    def play(self) -> None:
        """From an empty cluster to tables that are checked. No run is left, however it ends."""
        try:
            self._two_runs()
        finally:
            self.kill_command()
        self.check()

    def _two_runs(self) -> None:
        start_us = time.time_ns() // 1000 - MESSAGES * STEP_US
        say("a Spark cluster starts: a master, two workers, and Beam's job server")
        self._spark.start(_SIZES)
        say(f"{_HALF:,} messages go to Kafka: payments, copies, broken ones, some of the future")
        self.send(early_messages(start_us).take(_HALF))
        say("run --runner=SparkRunner")
        self._start_run()
        self.wait("Python workers are at work", lambda: bool(self._spark.python_workers()))
        say("an executor is killed with kill -9, with its Python worker; Spark starts another one")
        send_signal(self._spark.executors()[0], signal.SIGKILL)
        self._wait_for_run()
        self.show_rows("that run has ended, and the tables have")
        say(f"{_HALF:,} more: some are late, and some are copies of what came before")
        later = later_messages(start_us + _HALF * STEP_US)
        self.send([*later.take(_HALF - _OLD_COPIES), *copies_of(self.sent, _OLD_COPIES)])
        self._start_run()
        self.wait("Python workers are at work", lambda: bool(self._spark.python_workers()))
        say("Beam's job server is killed with kill -9, and Spark's driver with it")
        self._spark.kill_job_server()
        self.show_rows("nothing of that run is visible")
        say("the job server is started again; the run has waited for it, and begins anew")
        self._spark.start_job_server()
        self._wait_for_run()

    def _start_run(self) -> None:
        self.start_command(
            "run", "--runner=SparkRunner", f"--job_endpoint={self._spark.job_server_address}",
            "--environment_type=PROCESS",
            f"--environment_config={self._spark.process_environment}",
            *self.source_and_destination,
        )  # fmt: skip

    def _wait_for_run(self) -> None:
        try:
            self.good &= self.end_of_command() == 0
        except subprocess.TimeoutExpired as late:
            raise too_late("the run ends") from late

    def ended_early(self, status: int, what: str) -> str:
        return (
            f"run has ended with status {status} before this: {what}. Its own message stands above."
        )
