"""A streaming job with a large state, whose checkpoints take longer than the time between them.

python -m benchmarks.flink_large_state [live_ids] [messages/s]: a real Kafka broker and a real Flink
cluster (Java 17, Maven) on this machine, one worker process (LOOPBACK) into DuckDB. The job begins
from tables with so many live ids, and takes a full checkpoint each second, or as often as it can,
while messages come with copies. On the way the TaskManager is killed in the middle of a checkpoint,
then everything. Exit status 1 where a row is lost or doubled. See benchmarks/README.md.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from benchmarks.checkpoint_watch import CheckpointWatch, in_words
from benchmarks.direct_run import PARTITIONS
from benchmarks.flink_stream import running_cluster
from benchmarks.load_with_copies import LoadWithCopies
from benchmarks.paid_once import differences
from benchmarks.process_status import peak_bytes, resident_bytes
from benchmarks.report import say
from benchmarks.steady_load import RATE, latency_in_words, since
from benchmarks.stored_payments import add_payments
from pipeline.check.command import check
from pipeline.check.result import exit_status, print_results
from runners.flink.configuration import ClusterSettings
from runners.flink.servers import TASK_MANAGER
from tests.soak.servers import Servers
from tests.support.kafka_broker import running_broker
from tests.support.payment_sender import Sender, meanwhile, now_us
from tests.support.streaming_command import StreamingCommand
from transforms.destinations.open import open_destination

IDS = 30_000_000
TOPIC, STORED_TOPIC = "payments", "stored"
INTERVAL_MS = 1_000
STEADY_SECONDS = 60

_SPAN_US = 50 * 60_000_000
_HORIZON = "--dedup_horizon=2h"
"""No id expires within 70 minutes, so each copy must be found."""

_FLAGS = (_HORIZON, "--checkpoint_timeout_millis=600000")
"""The timeout is the product's own; that of the tests is shorter."""

_BOUND_SECONDS = 900.0
_FIGURES_SECONDS = 60.0
"""A JobManager that shows none of a job by then shows none until it is started again."""

_LINE_SECONDS = 10
_FEW = 10_000
"""Messages that wait in Kafka: no more than a second's, at the users' load."""

_TRIES = 5
_COLUMNS = (
    "seconds  read        lag      live ids    checkpoints  the last, s  MB     TaskManager MB"
    "  worker MB"
)


def main(ids: int, rate: int) -> int:
    """Prints the figures as they come; the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    settings = ClusterSettings(slots=1, incremental=False)
    with (
        tempfile.TemporaryDirectory() as folder,
        running_broker(Path(folder, "broker")) as broker,
        running_cluster(Path(folder, "flink"), settings) as cluster,
    ):
        servers, first_us = Servers(broker, cluster), now_us()
        file = store(servers, Path(folder, "store"), ids, first_us)
        load = LoadWithCopies(broker, TOPIC, rate, ids, first_us, _SPAN_US)
        wrong = stream(servers, Path(folder), file, load, ids)
        wrong += differences(file, load.kinds, STORED_TOPIC, ids)
        return 1 if show_checks(file) or say_all(wrong) else 0


def store(servers: Servers, folder: Path, ids: int, first_us: int) -> Path:
    """The DuckDB file with so many payments, the newest of which has this event time."""
    folder.mkdir()
    servers.create_topic(STORED_TOPIC, 1)
    address = servers.broker.bootstrap_servers
    Sender(address, STORED_TOPIC, 1, seed=1).send_payment("first", first_us)
    command = StreamingCommand(servers.cluster, address, STORED_TOPIC, folder)
    with redirect_stdout(StringIO()):
        assert command.bounded_run(_HORIZON) == 0, command.log
    began = time.monotonic()
    add_payments(command.file, ids, _SPAN_US)
    say(
        "payments in the tables",
        f"{ids:,}, in a file of {command.file.stat().st_size / 1e6:,.0f} MB,"
        f" written in {time.monotonic() - began:.0f} s",
    )
    return command.file


def stream(servers: Servers, folder: Path, file: Path, load: LoadWithCopies, ids: int) -> list[str]:
    """The job from its start to its stop; what was wrong with its checkpoints."""
    servers.create_topic(TOPIC, PARTITIONS)
    command = StreamingCommand(
        servers.cluster,
        servers.broker.bootstrap_servers,
        TOPIC,
        folder,
        INTERVAL_MS,
        bound_seconds=_BOUND_SECONDS,
    )
    command.file = file
    watch = CheckpointWatch(servers.cluster.rest)
    job = Job(command, watch, ids)
    try:
        with meanwhile(watch.look):
            with load.running():
                job.start()
                job.show_a_minute()
                job.kill_task_manager()
                job.kill_everything()
            say("sent", f"{load.kinds.total():,}, {load.rate:,.0f}/s: {dict(load.kinds)}")
            job.end()
    finally:
        command.kill()
    say("all checkpoints", in_words(watch.completed()))
    say("at once in flight", f"{watch.most_at_once} at most", "1")
    wrong = list(watch.overlapping())
    return wrong if watch.most_at_once == 1 else [*wrong, f"{watch.most_at_once} at once"]


class Job:
    """What is done to the job. ids: that it loads."""

    def __init__(self, command: StreamingCommand, watch: CheckpointWatch, ids: int) -> None:
        self._command, self._watch, self._ids = command, watch, ids
        self._cluster = command.cluster
        self._before: Mapping[str, float] = {}

    def start(self) -> None:
        """From the tables, while messages come."""
        began = time.monotonic()
        self._command.start(*_FLAGS)
        say("the job runs", f"after {time.monotonic() - began:.0f} s")
        self._command.wait_for("ids", lambda: self._command.figures().live_ids >= self._ids)
        say("all ids are loaded", f"after {time.monotonic() - began:.0f} s")
        self._until_it_keeps_up(began)
        say("until then", in_words(self._watch.completed()))

    def show_a_minute(self) -> None:
        """A line every ten seconds, and the latency of that minute."""
        before, done = self._command.figures(), len(self._watch.completed())
        began = time.monotonic()
        print(_COLUMNS, flush=True)
        for second in range(_LINE_SECONDS, STEADY_SECONDS + 1, _LINE_SECONDS):
            time.sleep(max(0.0, began + second - time.monotonic()))
            print(self._line(second), flush=True)
        found = since(before, self._command.figures())
        say(f"{STEADY_SECONDS} s", in_words(self._watch.completed(done)))
        for share in (0.5, 0.99):
            say(f"latency, p{share * 100:.0f}", latency_in_words(found, share))

    def kill_task_manager(self) -> None:
        """kill -9 in the middle of a checkpoint; again, where that was complete by then."""
        for _ in range(_TRIES):
            self._say_peaks()
            self._before = self._command.figures().values
            victim = self._watch.one_in_progress()
            began = time.monotonic()
            self._cluster.kill_task_manager()
            self._cluster.start_task_manager(wait=False)
            say("kill -9 of the TaskManager", f"in checkpoint {victim.number}")
            self._until_it_keeps_up(began)
            if not self._watch.now(victim).is_complete:
                return
        raise AssertionError(f"each of {_TRIES} checkpoints was faster than a kill")

    def kill_everything(self) -> None:
        """kill -9 in the middle of a checkpoint, and --restore=latest."""
        for _ in range(_TRIES):
            self._say_peaks()
            self._before = self._command.figures().values
            victim = self._watch.one_in_progress()
            began = time.monotonic()
            self._cluster.kill_everything()
            self._command.kill()
            complete = victim.lies_in(self._cluster.checkpoints)
            self._cluster.start(self._cluster.settings)
            self._command.start(*_FLAGS, "--restore=latest")
            say("kill -9 of everything", f"in checkpoint {victim.number}, and --restore=latest")
            self._until_it_keeps_up(began)
            if not complete:
                return
        raise AssertionError(f"each of {_TRIES} checkpoints was faster than a kill")

    def end(self) -> None:
        """Reads the rest, then Ctrl-C and `stop`."""
        self._command.wait_until_read(PARTITIONS)
        self._say_peaks()
        with redirect_stdout(StringIO()):
            began = time.monotonic()
            self._command.interrupt()
            interrupted = time.monotonic()
            assert self._command.stop() == 0, self._command.log[-3000:]
        say("Ctrl-C, with a savepoint", f"{interrupted - began:.0f} s")
        say("stop", f"{time.monotonic() - interrupted:.0f} s")

    def _until_it_keeps_up(self, began: float) -> None:
        self._command.wait_for_checkpoints(1)
        say("    a checkpoint is complete", f"{time.monotonic() - began:.0f} s later")
        try:
            self._command.wait_for("figures", lambda: bool(self._waiting()), _FIGURES_SECONDS)
        except AssertionError:
            say("    Flink shows no figures", "docs/operations.md; the job goes on without them")
            return
        say("    waiting in Kafka then", f"{sum(self._waiting().values()):,}")
        self._command.wait_for("few messages wait in Kafka", self._keeps_up)
        say("    it keeps up again", f"{time.monotonic() - began:.0f} s later")

    def _keeps_up(self) -> bool:
        waiting = self._waiting()
        return len(waiting) == PARTITIONS and sum(waiting.values()) < _FEW

    def _waiting(self) -> dict[str, int]:
        """In Kafka, by partition; nothing while Flink shows what it has shown before the kill."""
        figures = self._command.figures()
        return {} if figures.values == self._before else figures.gauges("kafka_lag")

    def _line(self, second: int) -> str:
        figures, completed = self._command.figures(), self._watch.completed()
        last = completed[-1]
        return (
            f"{second:>7}  {figures.of('records_read'):<10,}  {figures.lag:<7,}"
            f"  {figures.live_ids:<10,}  {len(completed):<11}  {last.took_ms / 1e3:<11.1f}"
            f"  {last.size / 1e6:<5.0f}  {resident_bytes(self._task_manager) / 1e6:<14.0f}"
            f"  {resident_bytes(self._command.pid) / 1e6:.0f}"
        )

    def _say_peaks(self) -> None:
        say(
            "memory at most so far",
            f"TaskManager {peak_bytes(self._task_manager) / 1e6:,.0f} MB,"
            f" worker {peak_bytes(self._command.pid) / 1e6:,.0f} MB",
        )

    @property
    def _task_manager(self) -> int:
        (found,) = self._cluster.running(TASK_MANAGER)
        return found.pid


def show_checks(file: Path) -> int:
    """What `check` says; its exit status."""
    began = time.monotonic()
    with open_destination(f"duckdb:{file}") as destination:
        results = list(check(destination, None, 0.05, 400))
    print_results(results, as_json=False)
    say("check", f"status {exit_status(results)}, after {time.monotonic() - began:.0f} s")
    return exit_status(results)


def say_all(wrong: list[str]) -> bool:
    """Whether anything is wrong."""
    for each in wrong or ["nothing is lost or doubled"]:
        say("WRONG" if wrong else "right", each)
    return bool(wrong)


if __name__ == "__main__":
    given = [int(number) for number in sys.argv[1:]]
    sys.exit(main(*[*given, *(IDS, RATE)[len(given) :]]))
