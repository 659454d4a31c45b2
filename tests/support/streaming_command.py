"""`run --streaming` as a child process, on a real broker and a real Flink cluster."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.streaming.figures import JobFigures
from pipeline.streaming.flink_job import FlinkJob
from runners.flink.cluster import FlinkCluster
from runners.flink.rest import FlinkUnreachable
from tests.support.forked_command import ROOT, ForkedCommand

_LOOK_SECONDS = 0.2
_CHECKPOINT_TIMEOUT_MS = 30_000
"""Below the bounds of the waits. Where the machine is busy, the first incremental checkpoint after
a restore may name files that Flink has forgotten ("Attempt to reference unknown state", Flink
1.19); nothing acknowledges it then, and the job restarts when its time is over.
"""


class StreamingCommand:
    """A job in a folder: the command, its log, and the DuckDB file that it writes to.

    flags: more options of `run --streaming`. destination: the options that name another one than
    the file; its workers are those of the cluster's pool then, and the command ends once the job
    runs. bound_seconds: for how long anything is waited for.
    """

    def __init__(
        self,
        cluster: FlinkCluster,
        servers: str,
        topic: str,
        folder: Path,
        checkpoint_ms: int = 500,
        program: Sequence[str] = ("pipeline",),
        flags: Sequence[str] = (),
        destination: Sequence[str] = (),
        bound_seconds: float = 120.0,
    ) -> None:
        """program: what `python -m` runs, with the arguments that stand before the command."""
        self.cluster = cluster
        self._program = program
        self._bound_seconds = bound_seconds
        self._checkpoint_ms = checkpoint_ms
        self._more_flags = flags
        self.file = folder / "payments.duckdb"
        self._detached = bool(destination)
        self._other_destination = destination
        self._servers, self._topic, self._folder = servers, topic, folder
        self._child: ForkedCommand | None = None
        self._starts = 0

    @property
    def _destination(self) -> Sequence[str]:
        return self._other_destination or [f"--destination=duckdb:{self.file}"]

    @property
    def log(self) -> str:
        """What all commands so far have written."""
        return "".join(
            path.read_text(errors="replace") for path in sorted(self._folder.glob("command-*.log"))
        )

    @property
    def pid(self) -> int:
        """Of the running command, which is the worker as well."""
        assert self._child is not None
        return self._child.pid

    def figures(self) -> JobFigures:
        """The job's counters now."""
        return JobFigures(self.job().figures(), 0)

    def state_bytes(self) -> int:
        """Of the whole state in the last checkpoint."""
        latest = self.cluster.rest.checkpoints(self.job().jid)["latest"]["completed"]
        return int(latest["state_size"])

    def start(self, *flags: str) -> None:
        """Starts `run --streaming`, and waits until its job runs in Flink."""
        before = self.jobs()
        self.run_streaming(*flags)
        if self._detached:
            assert self.ended() == 0, self.log[-3000:]
        self.wait_until_runs(before)

    def jobs(self) -> set[str]:
        """Flink's ids of all jobs that it knows."""
        return {job["jid"] for job in self.cluster.rest.jobs()}

    def wait_until_runs(self, before: set[str]) -> None:
        """Until a job that is none of `before` runs."""
        self.wait_for("the job runs", lambda: bool(self.jobs() - before))
        self.wait_for("every step runs", lambda: self.job().state() == "RUNNING")

    def run_streaming(self, *flags: str) -> None:
        """Starts `run --streaming` and does not wait for it."""
        self.run("run", *self._flags(), *flags)

    def run(self, *arguments: str) -> None:
        """Starts a command and does not wait for it."""
        self._starts += 1
        with (self._folder / f"command-{self._starts:02}.log").open("wb") as log:
            module, *before = self._program
            variables = {**os.environ, "PYTHONPATH": str(ROOT)}
            self._child = ForkedCommand(module, [*before, *arguments], log, variables=variables)

    @property
    def runs(self) -> bool:
        """Whether the command was started, and has not ended."""
        return self._child is not None and self._child.poll() is None

    def ended(self) -> int:
        """Waits for the end of the command; its exit status."""
        assert self._child is not None
        status = self._child.wait(self._bound_seconds)
        self._child = None
        print(f"exit status {status}:\n{self.log[-3000:]}")  # shown where a test fails
        return status

    def interrupt(self) -> None:
        """Ctrl-C: a savepoint, and the end of the job."""
        assert self._child is not None
        self._child.send_signal(signal.SIGINT)
        assert self.ended() == 130, self.log[-3000:]

    def kill(self) -> None:
        """kill -9 of the command, which is the worker as well."""
        if self._child is not None:
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait(10)
            self._child = None

    def stop(self, *flags: str) -> int:
        """`payment-pipeline stop`; its exit status."""
        flags = flags or (f"--flink_master={self.cluster.rest_address}",)
        self.run("stop", *self._destination, *flags)
        return self.ended()

    def bounded_run(self, *flags: str) -> int:
        """`payment-pipeline run` without --streaming; its exit status."""
        self.run("run", *self._source_and_destination(), *flags)
        return self.ended()

    def wait_until_read(self, partitions: int, seconds: float | None = None) -> None:
        """Until nothing waits in Kafka, and what was read lies in the tables.

        A checkpoint that begins after the last record was read is complete only once every step has
        dealt with what came before it.
        """
        self.wait_for("nothing waits in Kafka", lambda: self._nothing_waits(partitions), seconds)
        self.wait_for_checkpoints(2)

    def wait_for_checkpoints(self, number: int) -> None:
        """Until so many more are complete than when Flink first tells how many are."""
        wanted: list[int] = []

        def are_complete() -> bool:
            completed = self._completed()
            wanted[:] = wanted or [completed + number]
            return completed >= wanted[0]

        self.wait_for(f"{number} checkpoints", are_complete)

    def wait_for(self, what: str, holds: Callable[[], bool], seconds: float | None = None) -> None:
        """Raises AssertionError with the command's log when it does not come true, or it ends."""
        deadline = time.monotonic() + (seconds or self._bound_seconds)
        while True:
            try:
                if holds():
                    return
            except FlinkUnreachable:
                pass  # a JobManager that was killed, or a job that begins again
            ended = not (self.runs or self._detached)
            if ended or time.monotonic() > deadline:
                raise AssertionError(f"waited for: {what}\n{self.log[-6000:]}")
            time.sleep(_LOOK_SECONDS)

    def _flags(self) -> list[str]:
        workers = []
        if self._detached:
            pool = self.cluster.worker_pool_addresses[0]
            workers = ["--detach", "--environment_type=EXTERNAL", f"--environment_config={pool}"]
        return [
            *workers, *self._more_flags,
            "--streaming", "--runner=FlinkRunner", f"--flink_master={self.cluster.rest_address}",
            f"--job_endpoint={self.cluster.job_server_address}",
            f"--checkpointing_interval={self._checkpoint_ms}",
            "--min_pause_between_checkpoints=200",
            f"--checkpoint_timeout_millis={_CHECKPOINT_TIMEOUT_MS}",
            *self._source_and_destination(),
        ]  # fmt: skip

    def _source_and_destination(self) -> list[str]:
        return [
            f"--bootstrap_servers={self._servers}", f"--topic={self._topic}",
            *self._destination, "--idle_timeout=never",
        ]  # fmt: skip

    def job(self) -> FlinkJob:
        """The newest one in Flink."""
        return FlinkJob(self.cluster.rest, self.cluster.rest.jobs()[0]["jid"])

    def _nothing_waits(self, partitions: int) -> bool:
        waiting = self.figures().gauges("kafka_lag")
        return len(waiting) == partitions and not any(waiting.values())

    def _completed(self) -> int:
        job = self.job()
        return int(self.cluster.rest.checkpoints(job.jid)["counts"]["completed"])
