"""A Flink cluster on this machine: JobManager, TaskManagers, Beam's job server, worker pools.

Flink's servers and the pools listen on 127.0.0.1. Beam's job server, and the services that it opens
in each TaskManager, listen on all interfaces whatever their flags say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
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
from runners.flink.rest import FlinkRest, FlinkUnreachable
from runners.flink.servers import JOB_MANAGER, JOB_SERVER, TASK_MANAGER, java_server
from runners.java import java_command
from runners.maven import Launch, jars_of
from runners.ports import listens, ports_of
from runners.processes import ClusterFailed, ServerProcess
from runners.server_folder import LocalServers, python_path

WORKER_POOL: Final = "worker pool"

_SCRATCH: Final = ("tmp", "artifacts")
"""Folders of no use once the servers have ended."""

_START_SECONDS: Final = 90.0


class FlinkCluster(LocalServers):
    """The cluster of one folder. Another process that opens the same folder means the same one.

    folder: holds cluster.json, logs, checkpoints and savepoints; `stop` leaves it, so that
    `start` later finds the checkpoints. launch: from a command to the one that is started.
    """

    def __init__(self, folder: Path, launch: Launch = list) -> None:
        super().__init__(folder, "payment-pipeline flink up", launch)
        self._jars: Path | None = None

    # -- what it is ------------------------------------------------------------------------------

    @property
    def settings(self) -> ClusterSettings:
        """The sizes that it was started with."""
        return ClusterSettings(**self._servers.started_with["settings"])

    @property
    def rest_address(self) -> str:
        """HOST:PORT of Flink's REST interface and its web page: the value of --flink_master."""
        return f"127.0.0.1:{self._ports.rest}"

    @property
    def job_server_address(self) -> str:
        """HOST:PORT of Beam's job server: the value of --job_endpoint."""
        return f"127.0.0.1:{self._ports.job_server}"

    @property
    def worker_pool_addresses(self) -> list[str]:
        """HOST:PORT of each worker pool: a value of --environment_config with EXTERNAL."""
        return [f"127.0.0.1:{port}" for port in self._ports.worker_pools]

    @property
    def rest(self) -> FlinkRest:
        """Flink's REST interface."""
        return FlinkRest(self.rest_address)

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
        with self._servers.locked():
            if self.exists and self.running():
                raise ClusterFailed(
                    f"a cluster runs in {self.folder} already (REST {self.rest_address}). Use it,"
                    " or end it first with `payment-pipeline flink down`."
                )
            first, rest, blob, job_server, *pools = ports_of(
                self.folder / "ports.json", 4 + settings.worker_pools
            )
            ports = ClusterPorts(first, rest, blob, job_server, tuple(pools))
            self._servers.begin(
                {"settings": asdict(settings), "ports": asdict(ports)},
                ("conf", *_SCRATCH, CHECKPOINTS, SAVEPOINTS),
            )
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
                self._servers.end(_SCRATCH)
                raise

    def stop(self) -> list[ServerProcess]:
        """Ends all servers at once (SIGKILL), and returns those that ran. Checkpoints stay."""
        with self._servers.locked():
            return self._servers.end(_SCRATCH) if self.exists else []

    def kill_everything(self) -> None:
        """SIGKILL to every server; cluster.json stays."""
        for process in self.running():
            process.kill()

    def kill_job_manager(self) -> None:
        """SIGKILL to the JobManager: its jobs end with it, their checkpoints stay."""
        self._servers.kill_newest(JOB_MANAGER)

    def kill_task_manager(self) -> None:
        """SIGKILL to the TaskManager that was started last."""
        self._servers.kill_newest(TASK_MANAGER)

    def kill_job_server(self) -> None:
        """SIGKILL to Beam's job server."""
        self._servers.kill_newest(JOB_SERVER)

    def workers(self) -> list[int]:
        """The pids of the Python workers that the worker pools have started, oldest first."""
        return sorted(pid for pool in self.running(WORKER_POOL) for pid in pool.children())

    def signal_task_manager(self, number: int) -> None:
        """Sends a signal, such as SIGSTOP, to the TaskManager that was started last."""
        self._servers.newest(TASK_MANAGER).send(number)

    def start_job_manager(self) -> None:
        """Starts it at its old address, without its jobs; waits until the TaskManagers know it."""
        self._jars = jars = self._jars or jars_of(version.POM, self._launch)
        with self._servers.locked():
            self._start_java(jars, JOB_MANAGER)
        self.wait_for_task_managers(len(self.running(TASK_MANAGER)))

    def start_task_manager(self, wait: bool = True) -> None:
        """Starts one more, and waits until the JobManager knows it, for at most 90 seconds."""
        self._jars = jars = self._jars or jars_of(version.POM, self._launch)
        with self._servers.locked():
            self._start_java(jars, TASK_MANAGER)
        if wait:
            self.wait_for_task_managers(len(self.running(TASK_MANAGER)))

    def wait_for_task_managers(self, count: int) -> None:
        """Waits until the JobManager knows exactly so many, also after one was killed."""
        self._wait_until(lambda: self.rest.overview()["taskmanagers"] == count, count)

    # --------------------------------------------------------------------------------------------

    @property
    def _ports(self) -> ClusterPorts:
        ports = self._servers.started_with["ports"]
        return ClusterPorts(**{**ports, "worker_pools": tuple(ports["worker_pools"])})

    def _is_ready(self) -> bool:
        settings = self.settings
        overview = self.rest.overview()
        return (
            overview["taskmanagers"] == settings.task_managers
            and overview["slots-total"] == settings.task_managers * settings.slots
            and all(map(listens, [self.job_server_address, *self.worker_pool_addresses]))
        )

    def _wait_until(self, ready: Callable[[], bool], task_managers: int) -> None:
        def is_ready() -> bool:
            try:
                return ready()
            except FlinkUnreachable:  # the JobManager is still starting
                return False

        what = f"the cluster with {task_managers} TaskManager(s)"
        self._servers.wait_until(is_ready, _START_SECONDS, what)

    def _start_java(self, jars: Path, role: str) -> None:
        command = java_server(role, jars, self.folder, self.settings, self._ports)
        self._servers.start(role, command, {})

    def _start_worker_pool(self, address: str) -> None:
        command = [sys.executable, "-m", "runners.worker_pool", address.rpartition(":")[2]]
        self._servers.start(WORKER_POOL, command, {"PYTHONPATH": python_path()})

    def _write_configuration(self) -> None:
        keys = flink_configuration(self.settings, self._ports, self.folder)
        text = "".join(f"{key}: {value}\n" for key, value in keys.items())
        (self.folder / "conf" / version.CONFIGURATION_FILE).write_text(text)
