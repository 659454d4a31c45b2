"""`demo --runner=flink`: payments flow through a streaming job, and all of it is killed.

Embedded Kafka, a Flink cluster in a folder of its own, and the command `run --streaming`, which is
the worker too. Whatever is killed is killed at a point that the job's own counters show.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Final

from pipeline.demo.cluster_demo import ClusterDemo, play_on_cluster
from pipeline.demo.demonstration import TOPIC, copies_of, early_messages, later_messages, say
from pipeline.demo.destination import DUCKDB, DemoDestination
from pipeline.demo.flow import flowing
from pipeline.produce.message_generator import STEP_US
from pipeline.streaming.figures import JobFigures
from pipeline.streaming.flink_job import FlinkJob
from runners.flink import version
from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import ClusterSettings
from runners.flink.rest import FlinkUnreachable
from transforms import metrics

MESSAGES: Final = 200_000
RATE: Final = 5_000
"""Messages a second."""

_FIRST: Final = 1_000
_BEFORE_KILL: Final = 40_000
_OLD_COPIES: Final = 100
_PARTITIONS: Final = 4
_SIZES: Final = ClusterSettings(
    task_manager_heap_mib=768, managed_mib=128, job_manager_heap_mib=256, job_server_heap_mib=384
)
_CHECKPOINTS: Final = (
    "--checkpointing_interval=1000",
    "--min_pause_between_checkpoints=1000",
    # A checkpoint that Flink has lost on the way shall not cost the default of 10 minutes.
    "--checkpoint_timeout_millis=20000",
)
_END_SECONDS: Final = 120.0


def flink_demo() -> int:
    """0 when the figures in the tables are those of what was sent, else 1.

    Raises GuaranteeError where Java 17 or Maven is missing, or a server does not come up;
    TryAgainLater where this machine is too busy for it.
    """
    return play_on_cluster("Flink", version.POM, DUCKDB, FlinkCluster, FlinkDemo)


class FlinkDemo(ClusterDemo):
    """Lets payments flow, kills first one server and then everything, and compares the tables."""

    def __init__(self, kafka: str, destination: DemoDestination, cluster: FlinkCluster) -> None:
        super().__init__(kafka, destination)
        self._cluster = cluster

    def play(self) -> None:
        """From an empty cluster to tables that are checked. No client is left, however it ends."""
        try:
            self._stream()
        finally:
            self.kill_command()
        say("stop: the tables are handed over to bounded runs")
        self.call("stop", *self.destination.arguments, self._master)
        self.check()

    def _stream(self) -> None:
        start_us = time.time_ns() // 1000 - MESSAGES * STEP_US
        say("a Flink cluster starts: JobManager, TaskManager and Beam's job server")
        self._cluster.start(_SIZES)
        with flowing(self.servers, TOPIC, early_messages(start_us), RATE) as flow:
            flow.allow(_FIRST)
            self.wait("the topic exists", flow.has_sent_all)
            say("run --streaming")
            self._start_client()
            self.wait("payments are read", self._has_checkpoints(1))
            say(f"payments flow at {RATE:,}/s, with copies, future and broken ones")
            flow.allow(MESSAGES // 2)
            self.wait("each partition has a watermark", self._has_watermarks)
            # A restart from an older checkpoint would find nothing late yet.
            self.wait("a checkpoint has them", self._has_checkpoints(2))
            say("from here on some are late as well")
            flow.go_on_with(later_messages(start_us + len(flow.sent) * STEP_US))
            self.wait("there is something to lose", self._has_accepted(_BEFORE_KILL))
            self._lose_task_manager()
            flow.allow(MESSAGES * 3 // 4)
            self.wait("more has come", self._has_accepted(_BEFORE_KILL))
            flow.allow(MESSAGES)
            self._lose_everything()
            flow.add(copies_of(flow.sent, _OLD_COPIES))
            self.wait("all messages are sent", flow.has_sent_all)
        self.sent = flow.sent
        self._wait_until_all_is_read()
        say("Ctrl-C: the command takes a savepoint, and the job ends with it")
        self._interrupt_client()

    def _lose_task_manager(self) -> None:
        say("the TaskManager is killed with kill -9, while payments flow; another one starts")
        job = self._job()
        before = _counts(job)["restored"]
        self._cluster.kill_task_manager()
        self._cluster.start_task_manager()
        self.wait("the job begins again", lambda: _counts(self._job())["restored"] > before)
        self.wait("it goes on", self._has_checkpoints(1))

    def _lose_everything(self) -> None:
        say("command, JobManager, TaskManager and job server are killed with kill -9, all at once")
        self.kill_command()
        self._cluster.kill_everything()
        self.show_rows("at this moment the tables have")
        say("the cluster starts again in the same folder, and run --streaming --restore=latest")
        self._cluster.start(_SIZES)
        self._start_client("--restore=latest")
        self.wait("the job goes on", self._has_checkpoints(1))

    def _wait_until_all_is_read(self) -> None:
        """Nothing waits in Kafka, two checkpoints later there is still nothing that was read."""
        while True:
            self.wait("nothing waits in Kafka", self._nothing_waits)
            before = self._figures().of(metrics.RECORDS_READ)
            self.wait("two checkpoints", self._has_checkpoints(2))
            if self._nothing_waits() and self._figures().of(metrics.RECORDS_READ) == before:
                return

    # -- the command -----------------------------------------------------------------------------

    @property
    def _master(self) -> str:
        return f"--flink_master={self._cluster.rest_address}"

    def _start_client(self, *flags: str) -> None:
        self.start_command(
            "run", "--streaming", "--runner=FlinkRunner",
            self._master, f"--job_endpoint={self._cluster.job_server_address}",
            *_CHECKPOINTS, *self.source_and_destination, *flags,
        )  # fmt: skip

    def _interrupt_client(self) -> None:
        self.interrupt_command()
        self.good &= self.end_of_command(_END_SECONDS) == 128 + signal.SIGINT

    def ended_early(self, status: int, what: str) -> str:
        return f"run --streaming has ended with status {status}; its own message stands above."

    # -- what the job shows ----------------------------------------------------------------------

    def _job(self) -> FlinkJob:
        jobs = self._cluster.rest.running_jobs()
        if not jobs:
            raise FlinkUnreachable("no job runs")
        return FlinkJob(self._cluster.rest, jobs[0]["jid"])

    def _figures(self) -> JobFigures:
        return JobFigures(self._job().figures(), 0)

    def _has_watermarks(self) -> bool:
        return len(self._figures().gauges(metrics.WATERMARK_MS)) == _PARTITIONS

    def _has_accepted(self, number: int) -> Callable[[], bool]:
        """So many payments since the first look; after a restart the counter begins again."""
        first: list[int] = []

        def are_accepted() -> bool:
            accepted = self._figures().of(metrics.ACCEPTED)
            first[:] = [min([accepted, *first])]
            return accepted >= first[0] + number

        return are_accepted

    def _nothing_waits(self) -> bool:
        lags = self._figures().gauges(metrics.KAFKA_LAG)
        return len(lags) == _PARTITIONS and not any(lags.values())

    def _has_checkpoints(self, number: int) -> Callable[[], bool]:
        """Whether so many more are complete than at the first look."""
        first: list[int] = []

        def are_complete() -> bool:
            complete = _counts(self._job())["completed"]
            first[:] = first or [complete]
            return complete >= first[0] + number

        return are_complete

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        def holds_now() -> bool:
            try:
                return holds()
            except FlinkUnreachable:  # the job is not there yet, or begins again
                return False

        super().wait(what, holds_now)


def _counts(job: FlinkJob) -> dict[str, int]:
    counts: dict[str, int] = job.rest.checkpoints(job.jid)["counts"]
    return counts
