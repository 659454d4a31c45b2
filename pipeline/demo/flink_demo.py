"""`demo --runner=flink`: payments flow through a streaming job, and all of it is killed.

Embedded Kafka, a Flink cluster in a folder of its own, and the command `run --streaming`, which is
the worker too. Whatever is killed is killed at a point that the job's own counters show.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.demo.demonstration import TOPIC, Demonstration, copies_of, say
from pipeline.demo.destination import DUCKDB, DemoDestination, demo_destination
from pipeline.demo.embedded_kafka import embedded_kafka
from pipeline.demo.ends_with_parent import ending_with_this_process
from pipeline.demo.flow import flowing
from pipeline.interrupt import only_record_signals
from pipeline.produce.message_generator import STEP_US, MessageGenerator
from pipeline.streaming.figures import JobFigures
from pipeline.streaming.flink_job import FlinkJob
from runners.flink import version
from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import ClusterSettings
from runners.flink.rest import FlinkUnreachable
from runners.java import Unavailable, java_command
from runners.maven import jars_of
from runners.processes import ClusterFailed
from transforms import metrics
from transforms.model.errors import GuaranteeError, TryAgainLater

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
_LOOK_SECONDS: Final = 0.2
_STEP_SECONDS: Final = 240.0
_END_SECONDS: Final = 120.0


def flink_demo() -> int:
    """0 when the figures in the tables are those of what was sent, else 1.

    Raises GuaranteeError where Java 17 or Maven is missing, or a server does not come up;
    TryAgainLater where this machine is too busy for it.
    """
    # The terminal may be closed: the end is that of SIGTERM, with nothing left behind.
    before = signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        java_command()
        say("Flink and Beam's job server come from Maven Central, the first time only")
        jars_of(version.POM, ending_with_this_process)
        with (
            embedded_kafka() as servers,
            demo_destination(DUCKDB) as destination,
            _cluster() as cluster,
        ):
            demo = FlinkDemo(servers, destination, cluster)
            demo.play()
            return demo.verdict()
    except (Unavailable, ClusterFailed) as error:
        raise GuaranteeError(str(error)) from error
    finally:
        signal.signal(signal.SIGHUP, before)


class FlinkDemo(Demonstration):
    """Lets payments flow, kills first one server and then everything, and compares the tables."""

    def __init__(self, servers: str, destination: DemoDestination, cluster: FlinkCluster) -> None:
        super().__init__(servers, destination)
        self._cluster = cluster
        self._client: subprocess.Popen[bytes] | None = None

    def play(self) -> None:
        """From an empty cluster to tables that are checked. No client is left, however it ends."""
        try:
            self._stream()
        finally:
            self._kill_client()
        say("stop: the tables are handed over to bounded runs")
        self.call("stop", *self.destination.arguments, self._master)
        say("check: has a row been lost, doubled or altered?")
        self.call("check", *self.destination.arguments)

    def _stream(self) -> None:
        start_us = time.time_ns() // 1000 - MESSAGES * STEP_US
        early = MessageGenerator(
            1, start_us, duplicate_rate=0.015, invalid_rate=0.005, future_rate=0.001
        )
        say("a Flink cluster starts: JobManager, TaskManager and Beam's job server")
        self._cluster.start(_SIZES)
        with flowing(self.servers, TOPIC, early, RATE) as flow:
            flow.allow(_FIRST)
            self._wait("the topic exists", flow.has_sent_all)
            say("run --streaming")
            self._start_client()
            self._wait("payments are read", self._has_checkpoints(1))
            say(f"payments flow at {RATE:,}/s, with copies, future and broken ones")
            flow.allow(MESSAGES // 2)
            self._wait("each partition has a watermark", self._has_watermarks)
            # A restart from an older checkpoint would find nothing late yet.
            self._wait("a checkpoint has them", self._has_checkpoints(2))
            say("from here on some are late as well")
            sent_us = start_us + len(flow.sent) * STEP_US
            late = MessageGenerator(
                2, sent_us, duplicate_rate=0.015, late_rate=0.002, invalid_rate=0.005
            )
            flow.go_on_with(late)
            self._wait("there is something to lose", self._has_accepted(_BEFORE_KILL))
            self._lose_task_manager()
            flow.allow(MESSAGES * 3 // 4)
            self._wait("more has come", self._has_accepted(_BEFORE_KILL))
            flow.allow(MESSAGES)
            self._lose_everything()
            flow.add(copies_of(flow.sent, _OLD_COPIES))
            self._wait("all messages are sent", flow.has_sent_all)
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
        self._wait("the job begins again", lambda: _counts(self._job())["restored"] > before)
        self._wait("it goes on", self._has_checkpoints(1))

    def _lose_everything(self) -> None:
        say("command, JobManager, TaskManager and job server are killed with kill -9, all at once")
        self._kill_client()
        self._cluster.kill_everything()
        self.show_rows("at this moment the tables have")
        say("the cluster starts again in the same folder, and run --streaming --restore=latest")
        self._cluster.start(_SIZES)
        self._start_client("--restore=latest")
        self._wait("the job goes on", self._has_checkpoints(1))

    def _wait_until_all_is_read(self) -> None:
        """Nothing waits in Kafka, two checkpoints later there is still nothing that was read."""
        while True:
            self._wait("nothing waits in Kafka", self._nothing_waits)
            before = self._figures().of(metrics.RECORDS_READ)
            self._wait("two checkpoints", self._has_checkpoints(2))
            if self._nothing_waits() and self._figures().of(metrics.RECORDS_READ) == before:
                return

    # -- the command -----------------------------------------------------------------------------

    @property
    def _master(self) -> str:
        return f"--flink_master={self._cluster.rest_address}"

    def _start_client(self, *flags: str) -> None:
        command = [
            sys.executable, "-m", "pipeline", "run", "--streaming", "--runner=FlinkRunner",
            self._master, f"--job_endpoint={self._cluster.job_server_address}",
            *_CHECKPOINTS, *self.source_and_destination, *flags,
        ]  # fmt: skip
        self._client = subprocess.Popen(
            ending_with_this_process(command), stdin=subprocess.DEVNULL, start_new_session=True
        )

    def _kill_client(self) -> None:
        if self._client is not None:
            os.killpg(self._client.pid, signal.SIGKILL)
            self._client.wait()
            self._client = None

    def _interrupt_client(self) -> None:
        assert self._client is not None
        os.killpg(self._client.pid, signal.SIGINT)
        self.good &= self._client.wait(_END_SECONDS) == 128 + signal.SIGINT
        self._client = None

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

    def _wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Raises GuaranteeError when the command has ended, TryAgainLater when it does not come."""
        deadline = time.monotonic() + _STEP_SECONDS
        while True:
            try:
                if holds():
                    return
            except FlinkUnreachable:
                pass  # the job is not there yet, or begins again
            if self._client is not None and (status := self._client.poll()) is not None:
                raise GuaranteeError(
                    f"run --streaming has ended with status {status}; its own message stands above."
                )
            if time.monotonic() > deadline:
                raise TryAgainLater(
                    f"waited {_STEP_SECONDS:.0f} s for this: {what}. The machine may be too busy;"
                    " start the demo again."
                )
            time.sleep(_LOOK_SECONDS)


@contextmanager
def _cluster() -> Iterator[FlinkCluster]:
    """A cluster that is not started yet, in a new folder; neither is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="payment-pipeline-demo-"))
    cluster = FlinkCluster(folder, launch=ending_with_this_process)
    try:
        yield cluster
    finally:
        only_record_signals()  # another Ctrl-C does not stop the end half way
        cluster.stop()
        shutil.rmtree(folder)


def _counts(job: FlinkJob) -> dict[str, int]:
    counts: dict[str, int] = job.rest.checkpoints(job.jid)["counts"]
    return counts
