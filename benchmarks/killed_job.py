"""`run --every` on Spark as a service manager runs it, and what is done to it."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.latency import noted_moments
from benchmarks.process_status import resident_bytes
from benchmarks.random_kills import CLIENT, EXECUTOR, JOB_SERVER, Fault
from runners.processes import send_signal
from runners.spark.cluster import SparkServers
from runners.spark.servers import JOB_SERVER as JOB_SERVER_ROLE
from tests.support.forked_command import ForkedCommand
from tests.support.spark_command import SparkCommand

_BACK_SECONDS = 660.0
"""A job that has committed nothing for so long does not come back: the longest that a client waits
is the 600 s for a job server that is busy.
"""

_LOOK_SECONDS = 0.1
_FIND_SECONDS = 30.0
_BEGINS = " begins: at most"


class KilledJob:
    """The client, which is started again whenever it has ended, and its job server.

    command: with benchmarks.timed_run as its program. flags: of `run`. moments: what it notes.
    """

    def __init__(
        self,
        servers: SparkServers,
        command: SparkCommand,
        flags: Sequence[str],
        moments: Path,
        seed: int,
    ) -> None:
        self.starts = 0
        self.ended_by_itself: list[int] = []
        """Exit statuses."""
        self.faults_done: list[tuple[int, Fault]] = []
        """With the moment of the end of each, microseconds since 1970."""
        self._servers, self._command, self._flags = servers, command, list(flags)
        self._moments = moments
        self._random = random.Random(f"victims {seed}")
        self._peaks: Counter[str] = Counter()
        self._start()

    def watch_until(self, moment: float) -> None:
        """Looks at it until then. moment: of time.monotonic(). Raises RuntimeError where the job
        does not come back.
        """
        while time.monotonic() < moment:
            self.look()
            time.sleep(_LOOK_SECONDS)

    def look(self) -> None:
        """Starts the client again where it has ended, and notes how large both processes are."""
        status = self._client.poll()
        if status is not None:
            self.ended_by_itself.append(status)
            print(f"the client has ended by itself, status {status}\n{self._command.log[-2000:]}")
            self._start()
        of_server = resident_bytes(self._job_server_pid)
        if not of_server:
            raise RuntimeError("the job server has ended by itself; its log says why")
        for name, size in ((CLIENT, resident_bytes(self._client.pid)), (JOB_SERVER, of_server)):
            self._peaks[name] = max(self._peaks[name], size)
        newest = self._moments.stat().st_mtime if self._moments.exists() else self._began
        if time.time() - newest > _BACK_SECONDS:
            raise RuntimeError(
                f"nothing was committed for {_BACK_SECONDS:.0f} s:\n{self._command.log[-6000:]}"
            )

    @property
    def transactions(self) -> int:
        """That were committed and noted."""
        return len(noted_moments(self._moments))

    def peak_bytes(self, name: str) -> int:
        """The most memory of CLIENT or JOB_SERVER since the last call."""
        return self._peaks.pop(name, 0)

    def do(self, fault: Fault) -> None:
        """The process runs again, or is started, when this returns."""
        if fault.into is not None:
            begun = self._command.log.count(_BEGINS)
            self._wait(lambda: self._command.log.count(_BEGINS) > begun)
            self.watch_until(time.monotonic() + fault.into)
        if fault.stopped:
            self._stop(fault)
        elif fault.victim == CLIENT:
            os.killpg(self._client.pid, signal.SIGKILL)
            self._client.wait(10)
            self._start()
        elif fault.victim == JOB_SERVER:
            self._servers.kill_job_server()
            self._servers.start_job_server()
            self._job_server_pid = self._servers.running(JOB_SERVER_ROLE)[0].pid
        else:
            self._kill_one(fault)
        self.faults_done.append((time.time_ns() // 1000, fault))
        print(f"{time.strftime('%H:%M:%S')} {fault}", flush=True)

    def end(self) -> int:
        """SIGTERM to the client; its exit status."""
        self._client.send_signal(signal.SIGTERM)
        return self._client.wait(_BACK_SECONDS)

    def seconds_back(self) -> list[float]:
        """From the end of each fault to the end of the next commit, where one came."""
        moments = [moment.visible_us for moment in noted_moments(self._moments)]
        next_us = [
            (at_us, min((moment for moment in moments if moment > at_us), default=None))
            for at_us, _ in self.faults_done
        ]
        return [(moment - at_us) / 1e6 for at_us, moment in next_us if moment is not None]

    def _start(self) -> None:
        self.starts += 1
        self._began = time.time()
        self._client: ForkedCommand = self._command.start(*self._flags)
        self._job_server_pid = self._servers.running(JOB_SERVER_ROLE)[0].pid

    def _stop(self, fault: Fault) -> None:
        pid = self._client.pid if fault.victim == CLIENT else self._job_server_pid
        send_signal(pid, signal.SIGSTOP)
        try:
            self.watch_until(time.monotonic() + fault.stopped)
        finally:
            send_signal(pid, signal.SIGCONT)

    def _kill_one(self, fault: Fault) -> None:
        """Of several, which come and go with the transactions."""
        find = self._servers.executors if fault.victim == EXECUTOR else self._servers.python_workers
        found: list[int] = []

        def there_is_one() -> bool:
            found[:] = find()
            return bool(found)

        if self._wait(there_is_one):
            send_signal(self._random.choice(found), signal.SIGKILL)
        else:
            print(f"no {fault.victim} was seen for {_FIND_SECONDS:.0f} s")

    def _wait(self, holds: Callable[[], bool]) -> bool:
        """Whether it has come true in time."""
        deadline = time.monotonic() + _FIND_SECONDS
        while time.monotonic() < deadline:
            if holds():
                return True
            self.look()
            time.sleep(_LOOK_SECONDS)
        return False
