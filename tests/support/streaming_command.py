"""`run --streaming` as a child process, on a real broker and a real Flink cluster."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaError, Producer

from pipeline.check.command import check
from pipeline.check.result import FAILED
from pipeline.streaming.figures import JobFigures
from pipeline.streaming.flink_job import FlinkJob
from runners.flink.cluster import FlinkCluster
from runners.flink.rest import FlinkUnreachable
from tests.support.child_process import ending_with_this_process
from transforms.destinations.open import open_destination
from transforms.model.moments import moment_in_words

ROOT = Path(__file__).parents[2]

PARTITIONS = 3
"""Of the topic of tests/cluster/conftest.py."""

_LOOK_SECONDS = 0.2
_SENT_SECONDS = 120
_CHECKPOINT_TIMEOUT_MS = 30_000
"""Below the bounds of the waits. Where the machine is busy, the first incremental checkpoint after
a restore may name files that Flink has forgotten ("Attempt to reference unknown state", Flink
1.19); nothing acknowledges it then, and the job restarts when its time is over.
"""

_SECOND_US = 1_000_000


def now_us() -> int:
    """The clock, in microseconds."""
    return time.time_ns() // 1000


@dataclass
class Sent:
    """What a topic has got. ids: copies by transaction_id. broken: records that are no payment."""

    ids: Counter[str] = field(default_factory=Counter)
    broken: int = 0

    @property
    def records(self) -> int:
        return self.ids.total() + self.broken

    def copy(self) -> Sent:
        """What was sent so far."""
        return Sent(Counter(self.ids), self.broken)


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` every 0.2 s, in a thread, until the end of the block.

    Raises what `act` has raised.
    """
    over = threading.Event()

    def act_on() -> None:
        while not over.wait(_LOOK_SECONDS):
            act()

    with ThreadPoolExecutor(1) as threads:
        acting = threads.submit(act_on)
        try:
            yield
        finally:
            over.set()
    acting.result()


class Sender:
    """Sends payments to random partitions, with copies near and far, and broken records."""

    def __init__(
        self, servers: str, topic: str, partitions: int, seed: int, sent: Sent | None = None
    ) -> None:
        """sent: to go on with what another one has sent."""
        # What a broker that dies has taken, and not acknowledged, must not be there twice.
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "linger.ms": 5,
                "enable.idempotence": True,
                "log_level": 2,
                "reconnect.backoff.max.ms": 500,
            }
        )
        self._topic, self._partitions = topic, partitions
        self.seed = seed
        self._random = random.Random(seed)
        self.sent = Sent() if sent is None else sent

    def send(self, records: int, event_time_us: int) -> None:
        """Event times lie within a minute before `event_time_us`. Waits until all are there."""
        for _ in range(records):
            if self._random.random() < 0.01:
                value = b"broken"
                self.sent.broken += 1
            else:
                value = self._copy(self._key(), event_time_us)
            self._produce(value)
        assert self._producer.flush(_SENT_SECONDS) == 0

    def steadily(
        self, records: int, event_time_us: Callable[[], int]
    ) -> AbstractContextManager[None]:
        """Sends some records every 0.2 s, in a thread, until the end of the block.

        event_time_us: called before each `send`.
        """
        return meanwhile(lambda: self.send(records, event_time_us()))

    @staticmethod
    def _delivered(error: KafkaError | None, _: object) -> None:
        assert error is None, error

    def send_copies(self, records: int, event_time_us: int) -> None:
        """Of payments that were sent before; else as `send`."""
        for key in self._random.choices(list(self.sent.ids), k=records):
            self._produce(self._copy(key, event_time_us))
        assert self._producer.flush(_SENT_SECONDS) == 0

    def _copy(self, key: str, event_time_us: int) -> bytes:
        self.sent.ids[key] += 1
        return payment(key, event_time_us - self._random.randrange(60 * _SECOND_US))

    def _produce(self, value: bytes) -> None:
        partition = self._random.randrange(self._partitions)
        self._producer.produce(self._topic, value, partition=partition, on_delivery=self._delivered)
        self._producer.poll(0)

    def _key(self) -> str:
        known = len(self.sent.ids)
        if known and self._random.random() < 0.05:
            return f"t{self._random.randrange(known)}"
        return f"t{known}"


def payment(key: str, event_time_us: int) -> bytes:
    """A record's value."""
    time_text = moment_in_words(event_time_us)
    return json.dumps(
        {"transaction_id": key, "event_time": time_text, "amount": "12.50", "currency": "EUR"}
    ).encode()


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
        self._destination = destination or [f"--destination=duckdb:{self.file}"]
        self._servers, self._topic, self._folder = servers, topic, folder
        self._child: subprocess.Popen[bytes] | None = None
        self._starts = 0

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
            self._child = subprocess.Popen(
                ending_with_this_process([sys.executable, "-m", *self._program, *arguments]),
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip

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
        """Until so many more are complete."""
        wanted = self._completed() + number
        self.wait_for(f"{number} checkpoints", lambda: self._completed() >= wanted)

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


def assert_each_payment_once(file: Path, sent: Sent) -> None:
    """Each id is paid once, its further copies are duplicates, broken records are rejected."""
    with open_destination(f"duckdb:{file}") as destination:
        paid = counted(destination, "payment_transactions")
        copies = counted(destination, "duplicate_transactions")
        rejected = destination.query("SELECT reason, payload FROM rejected_records").to_pylist()
        assert paid == Counter(dict.fromkeys(sent.ids, 1))
        assert copies == sent.ids - paid
        assert [row["payload"] for row in rejected] == [b"broken"] * sent.broken
    assert_no_check_fails(file)


def assert_no_check_fails(file: Path) -> None:
    """What `check` finds out without Kafka."""
    with open_destination(f"duckdb:{file}") as destination:
        results = list(check(destination, None, 100.0, 400))
    assert [result for result in results if result.status == FAILED] == []


def counted(destination: object, table: str) -> Counter[str]:
    """transaction_id -> rows."""
    found = destination.query(  # type: ignore[attr-defined]
        f"SELECT transaction_id, COUNT(*) AS copies FROM {table} GROUP BY ALL"
    )
    return Counter({row["transaction_id"]: row["copies"] for row in found.to_pylist()})
