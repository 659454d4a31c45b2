"""A Flink cluster on this machine: JobManager, TaskManagers, Beam's job server, worker pools.

Flink's servers and the pools listen on 127.0.0.1. Beam's job server, and the services that it opens
in each TaskManager, listen on all interfaces whatever their flags say.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from runners.flink import version
from runners.flink.checkpoints import complete_checkpoints
from runners.flink.configuration import (
    CHECKPOINTS,
    SAVEPOINTS,
    ClusterPorts,
    ClusterSettings,
    flink_configuration,
)
from runners.flink.ports import listens, ports_of
from runners.flink.processes import ClusterFailed, ServerProcess, start_process
from runners.flink.record import ClusterRecord, read_record, write_record
from runners.flink.rest import FlinkRest, FlinkUnreachable
from runners.flink.servers import JOB_MANAGER, JOB_SERVER, TASK_MANAGER, java_server
from runners.java import java_command
from runners.maven import Launch, jars_of

WORKER_POOL: Final = "worker pool"

_SCRATCH: Final = ("tmp", "artifacts")
"""Folders of no use once the servers have ended."""

_START_SECONDS: Final = 90.0
_PAUSE_SECONDS: Final = 0.1
_RELEVANT: Final = re.compile(r"ERROR|Exception|Caused by:|Error:|in use")


class FlinkCluster:
    """The cluster of one folder. Another process that opens the same folder means the same one.

    folder: holds cluster.json, logs, checkpoints and savepoints; `stop` leaves it, so that
    `start` later finds the checkpoints. launch: from a command to the one that is started.
    """

    def __init__(self, folder: Path, launch: Launch = list) -> None:
        self.folder = folder.absolute()
        self._launch = launch
        self._jars: Path | None = None

    # -- what it is ------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        """Whether the folder has a cluster, running or not."""
        return self._file.is_file()

    @property
    def settings(self) -> ClusterSettings:
        """The sizes that it was started with."""
        return self._record().settings

    @property
    def rest_address(self) -> str:
        """HOST:PORT of Flink's REST interface and its web page: the value of --flink_master."""
        return f"127.0.0.1:{self._record().ports.rest}"

    @property
    def job_server_address(self) -> str:
        """HOST:PORT of Beam's job server: the value of --job_endpoint."""
        return f"127.0.0.1:{self._record().ports.job_server}"

    @property
    def worker_pool_addresses(self) -> list[str]:
        """HOST:PORT of each worker pool: a value of --environment_config with EXTERNAL."""
        return [f"127.0.0.1:{port}" for port in self._record().ports.worker_pools]

    @property
    def rest(self) -> FlinkRest:
        """Flink's REST interface."""
        return FlinkRest(self.rest_address)

    @property
    def processes(self) -> list[ServerProcess]:
        """The servers that were started and not ended by a call here, also those that died."""
        return list(self._record().processes)

    def running(self, role: str | None = None) -> list[ServerProcess]:
        """The servers that run, of one role or all."""
        return [
            process for process in self.processes if role in (None, process.role) and process.runs()
        ]

    @property
    def checkpoints(self) -> list[Path]:
        """The complete checkpoints of all jobs, newest first."""
        return complete_checkpoints(self.folder / CHECKPOINTS)

    def newest_complete_checkpoint(self) -> Path | None:
        """The newest checkpoint that a job can be restored from; None if there is none."""
        return next(iter(self.checkpoints), None)

    @property
    def savepoints_address(self) -> str:
        """Where savepoints go, as file:///..."""
        return (self.folder / SAVEPOINTS).as_uri()

    # -- what can be done to it ------------------------------------------------------------------

    def start(self, settings: ClusterSettings) -> None:
        """Starts all servers and waits until they are ready, for at most 90 seconds.

        Raises ClusterFailed, with the line of a log that says why, and Unavailable when Java or
        Maven is missing; no server is left then.
        """
        java_command()
        self._jars = jars = jars_of(version.POM, self._launch)
        with self._locked():
            if self.exists and self.running():
                raise ClusterFailed(
                    f"a cluster runs in {self.folder} already (REST {self.rest_address}). Use it,"
                    " or end it first with `payment-pipeline flink down`."
                )
            for name in ("conf", "logs", *_SCRATCH, CHECKPOINTS, SAVEPOINTS):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            first, rest, blob, job_server, *pools = ports_of(
                self.folder / "ports.json", 4 + settings.worker_pools
            )
            ports = ClusterPorts(first, rest, blob, job_server, tuple(pools))
            self._write(ClusterRecord(settings, ports, ()))
            try:
                self._write_configuration()
                self._start_java(jars, JOB_MANAGER)
                for _ in range(settings.task_managers):
                    self._start_java(jars, TASK_MANAGER)
                self._start_java(jars, JOB_SERVER)
                for address in self.worker_pool_addresses:
                    self._start_worker_pool(address)
                self._wait_until(self._is_ready, settings.task_managers)
            except BaseException:
                self._end()
                raise

    def stop(self) -> list[ServerProcess]:
        """Ends all servers at once (SIGKILL), and returns those that ran. Checkpoints stay."""
        with self._locked():
            return self._end() if self.exists else []

    def kill_everything(self) -> None:
        """SIGKILL to every server; cluster.json stays."""
        for process in self.running():
            process.kill()

    def kill_job_manager(self) -> None:
        """SIGKILL to the JobManager: its jobs end with it, their checkpoints stay."""
        self._kill(JOB_MANAGER)

    def kill_task_manager(self) -> None:
        """SIGKILL to the TaskManager that was started last."""
        self._kill(TASK_MANAGER)

    def kill_job_server(self) -> None:
        """SIGKILL to Beam's job server."""
        self._kill(JOB_SERVER)

    def workers(self) -> list[int]:
        """The pids of the Python workers that the worker pools have started, oldest first."""
        return sorted(pid for pool in self.running(WORKER_POOL) for pid in pool.children())

    def signal_task_manager(self, number: int) -> None:
        """Sends a signal, such as SIGSTOP, to the TaskManager that was started last."""
        self._newest(TASK_MANAGER).send(number)

    def start_job_manager(self) -> None:
        """Starts it at its old address, without its jobs; waits until the TaskManagers know it."""
        self._jars = jars = self._jars or jars_of(version.POM, self._launch)
        with self._locked():
            self._start_java(jars, JOB_MANAGER)
        self.wait_for_task_managers(len(self.running(TASK_MANAGER)))

    def start_task_manager(self, wait: bool = True) -> None:
        """Starts one more, and waits until the JobManager knows it, for at most 90 seconds."""
        self._jars = jars = self._jars or jars_of(version.POM, self._launch)
        with self._locked():
            self._start_java(jars, TASK_MANAGER)
        if wait:
            self.wait_for_task_managers(len(self.running(TASK_MANAGER)))

    def wait_for_task_managers(self, count: int) -> None:
        """Waits until the JobManager knows exactly so many, also after one was killed."""
        self._wait_until(lambda: self.rest.overview()["taskmanagers"] == count, count)

    # --------------------------------------------------------------------------------------------

    def _kill(self, role: str) -> None:
        victim = self._newest(role)
        victim.kill()
        with self._locked():
            record = self._record()
            left = tuple(process for process in record.processes if process != victim)
            self._write(replace(record, processes=left))

    def _newest(self, role: str) -> ServerProcess:
        running = self.running(role)
        if not running:
            raise ClusterFailed(f"no {role} runs in {self.folder}")
        return running[-1]

    def _end(self) -> list[ServerProcess]:
        ended = self.running()
        for process in ended:
            process.kill()
        for name in _SCRATCH:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._file.unlink()
        return ended

    def _is_ready(self) -> bool:
        settings = self.settings
        overview = self.rest.overview()
        return (
            overview["taskmanagers"] == settings.task_managers
            and overview["slots-total"] == settings.task_managers * settings.slots
            and all(map(listens, [self.job_server_address, *self.worker_pool_addresses]))
        )

    def _wait_until(self, ready: Callable[[], bool], task_managers: int) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                if ready():
                    return
            except FlinkUnreachable:  # the JobManager is still starting
                pass
            for process in self.processes:
                if not process.runs():
                    raise ClusterFailed(f"the {process.role} has ended: {_relevant_line(process)}")
            if time.monotonic() > deadline:
                lines = [f"{process.role}: {_relevant_line(process)}" for process in self.processes]
                raise ClusterFailed(
                    f"the cluster with {task_managers} TaskManager(s) is not ready after"
                    f" {_START_SECONDS:.0f} s; " + "; ".join(lines)
                )
            time.sleep(_PAUSE_SECONDS)

    def _start_java(self, jars: Path, role: str) -> None:
        record = self._record()
        self._start(role, java_server(role, jars, self.folder, record.settings, record.ports), {})

    def _start_worker_pool(self, address: str) -> None:
        command = [sys.executable, "-m", "runners.flink.worker_pool", address.rpartition(":")[2]]
        # The workers import the steps of the graph, which lie beside this package.
        root = str(Path(__file__).absolute().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._start(WORKER_POOL, command, {"PYTHONPATH": path})

    def _start(self, role: str, command: Sequence[str], environment: dict[str, str]) -> None:
        logs = self.folder / "logs"
        name = role.replace(" ", "-").lower()
        log = logs / f"{name}-{len(list(logs.glob(f'{name}-*.log'))) + 1}.log"
        process = start_process(role, self._launch(command), log, environment)
        record = self._record()
        self._write(replace(record, processes=(*record.processes, process)))

    def _write_configuration(self) -> None:
        record = self._record()
        keys = flink_configuration(record.settings, record.ports, self.folder)
        text = "".join(f"{key}: {value}\n" for key, value in keys.items())
        (self.folder / "conf" / version.CONFIGURATION_FILE).write_text(text)

    @property
    def _file(self) -> Path:
        return self.folder / "cluster.json"

    def _record(self) -> ClusterRecord:
        try:
            return read_record(self._file)
        except FileNotFoundError as missing:
            raise ClusterFailed(
                f"{self.folder} has no cluster. `payment-pipeline flink up` starts one."
            ) from missing

    def _write(self, record: ClusterRecord) -> None:
        write_record(self._file, record)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time changes what runs here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _relevant_line(process: ServerProcess) -> str:
    """The last line of its log that names an error, else the last one; and where the log is."""
    lines = Path(process.log).read_text(errors="replace").splitlines() or ["(empty)"]
    errors = [line for line in lines if _RELEVANT.search(line)]
    return f"{(errors or lines)[-1].strip()} ({process.log})"
