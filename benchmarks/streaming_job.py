"""A streaming job on Flink as the benchmarks run it, and the rate at which it drains a topic."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from benchmarks.direct_run import PARTITIONS
from runners.flink.cluster import FlinkCluster
from runners.flink.rest import FlinkRest
from tests.support.kafka_broker import KafkaBroker
from tests.support.streaming_command import StreamingCommand
from transforms import metrics

CHECKPOINT_MS = 2_000

_BUNDLES = f".{metrics.NAMESPACE}_{metrics.BUNDLES}"
"""A counter that only the step has which counts acknowledged rows."""

_ACKNOWLEDGED = (metrics.ACCEPTED, metrics.DUPLICATE, metrics.REJECTED)
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

    Asks for three counters of one step: all figures of a job are a dozen requests, which would take
    CPU from what is measured.
    """

    def __init__(self, rest: FlinkRest) -> None:
        self._rest = rest
        self._job = rest.jobs()[0]["jid"]
        self._path = ""

    def now(self) -> int:
        if not self._path:
            self._path = self._find()
        if not self._path:
            return 0
        found = self._rest.get(self._path)
        return sum(int(each["sum"]) for each in found)

    def _find(self) -> str:
        """Of the step's counters; "" before the first bundle has ended."""
        for vertex in self._rest.get(f"/jobs/{self._job}")["vertices"]:
            path = f"/jobs/{self._job}/vertices/{vertex['id']}/subtasks/metrics"
            names = [each["id"] for each in self._rest.get(path)]
            if counters := [name for name in names if name.endswith(_BUNDLES)]:
                prefix = counters[0].removesuffix(metrics.BUNDLES)
                wanted = ",".join(f"{prefix}{name}" for name in _ACKNOWLEDGED)
                return f"{path}?get={quote(wanted)}&agg=sum"
        return ""


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / _TICKS
