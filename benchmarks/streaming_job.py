"""A streaming job on Flink as the benchmarks run it, and the rate at which it drains a topic."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from urllib.parse import quote

from benchmarks.direct_run import PARTITIONS
from runners.flink.cluster import FlinkCluster
from runners.flink.rest import FlinkRest
from tests.support.kafka_broker import KafkaBroker
from tests.support.streaming_command import StreamingCommand
from transforms import metrics

CHECKPOINT_MS = 2_000

_ACKNOWLEDGED = tuple(
    f".{metrics.NAMESPACE}_{name}"
    for name in (metrics.ACCEPTED, metrics.DUPLICATE, metrics.REJECTED)
)
_TICKS = os.sysconf("SC_CLK_TCK")
_SECONDS = 1_200


@contextmanager
def running_job(
    cluster: FlinkCluster,
    broker: KafkaBroker,
    topic: str,
    folder: Path,
    flags: Sequence[str] = (),
    program: Sequence[str] = ("pipeline",),
) -> Iterator[StreamingCommand]:
    """`run --streaming` from the moment when Flink runs the job; ends it.

    folder: is made. flags: beside those of StreamingCommand. program: what `python -m` runs.
    """
    folder.mkdir()
    command = StreamingCommand(
        cluster, broker.bootstrap_servers, topic, folder, CHECKPOINT_MS, program
    )
    try:
        command.start(*flags)
        yield command
        with redirect_stdout(StringIO()):  # the end of its log, for tests; an error has it as well
            command.interrupt()
    finally:
        command.kill()
    # The job ends with the command only where that is its worker.
    for job in cluster.rest.running_jobs():
        cluster.rest.cancel(job["jid"])


def drain(command: StreamingCommand, messages: int) -> float | None:
    """Waits until every message is acknowledged by the destination, and in a checkpoint.

    Returns messages a second, from the first look at the job's counters that shows acknowledged
    rows to the first one that shows all of them: so without the job's start. Flink collects the
    counters once a second, so the time is up to a second too long, and never too short. None:
    between two looks all was done, so there is no rate.
    """
    counters = _Acknowledged(command.cluster.rest)
    seen: list[tuple[float, int]] = []

    def all_are_there() -> bool:
        number = counters.now()
        if number and (not seen or number != seen[-1][1]):
            seen.append((time.monotonic(), number))
        return number >= messages

    command.wait_for(f"{messages:,} acknowledged rows", all_are_there, _SECONDS)
    command.wait_until_read(PARTITIONS)
    (began, first), (ended, last) = seen[0], seen[-1]
    return (last - first) / (ended - began) if len(seen) > 1 else None


class _Acknowledged:
    """Rows of the newest job that the destination has acknowledged.

    Asks one step for its counters: all figures of a job are a dozen questions, which would take CPU
    from what is measured.
    """

    def __init__(self, rest: FlinkRest) -> None:
        self._rest = rest
        self._job = f"/jobs/{rest.jobs()[0]['jid']}"
        self._step = ""

    def now(self) -> int:
        if not self._step:
            self._step = self._find()
        # A counter has no name before it has counted, and then Flink answers for no other either.
        names = [name for name in self._names(self._step) if name.endswith(_ACKNOWLEDGED)]
        if not names:
            return 0
        found = self._rest.get(f"{self._step}?get={quote(','.join(names))}&agg=sum")
        return sum(int(each["sum"]) for each in found)

    def _find(self) -> str:
        """The step that counts them; "" before it has ended its first bundle."""
        for vertex in self._rest.get(self._job)["vertices"]:
            step = f"{self._job}/vertices/{vertex['id']}/subtasks/metrics"
            if any(name.endswith(_ACKNOWLEDGED) for name in self._names(step)):
                return step
        return ""

    def _names(self, step: str) -> list[str]:
        return [str(each["id"]) for each in self._rest.get(step)] if step else []


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICKS
