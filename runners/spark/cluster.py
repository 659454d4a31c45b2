"""Spark on this machine: Beam's job server, and with it a standalone cluster where one is wanted.

Spark's servers listen on 127.0.0.1 and 127.0.0.2. Beam's job server, and the services that it opens
for each job, listen on all interfaces whatever their flags say.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from runners.java import java_command
from runners.maven import Launch, jars_of
from runners.ports import listens, ports_of
from runners.processes import ClusterFailed, ServerProcess, command_lines, send_signal
from runners.server_folder import LocalServers, python_path
from runners.spark import servers, version
from runners.spark.servers import JOB_SERVER, MASTER, WORKER
from runners.spark.settings import WORKER_HOSTS, SparkPorts, SparkSettings

_SCRATCH: Final = ("tmp", "artifacts", "work", "home")
"""Folders of no use once the servers have ended."""

_START_SECONDS: Final = 90.0
_WORKER_FILE: Final = "python-worker"
_REGISTERED: Final = "Successfully registered with master"


class SparkServers(LocalServers):
    """The servers of one folder. Another process that opens the same folder means the same ones.

    folder: holds cluster.json and logs. launch: from a command to the one that is started.
    """

    def __init__(self, folder: Path, launch: Launch = list) -> None:
        super().__init__(folder, "payment-pipeline spark up", launch)

    # -- what it is ------------------------------------------------------------------------------

    @property
    def settings(self) -> SparkSettings:
        """The sizes that they were started with."""
        return SparkSettings(**self._servers.started_with["settings"])

    @property
    def job_server_address(self) -> str:
        """HOST:PORT of Beam's job server: the value of --job_endpoint."""
        return f"{WORKER_HOSTS[0]}:{self._ports.job_server}"

    @property
    def master_url(self) -> str:
        """What Spark calls its master."""
        return servers.master_url(self.settings, self._ports)

    @property
    def master_page(self) -> str | None:
        """HOST:PORT of the master's web page; None without a cluster."""
        return f"{WORKER_HOSTS[0]}:{self._ports.master_page}" if self.settings.cluster else None

    @property
    def process_environment(self) -> str:
        """The value of --environment_config with PROCESS: what starts a Python worker here."""
        return json.dumps({"command": str(self.folder / _WORKER_FILE)})

    def executors(self) -> list[int]:
        """The pids of the executors of a cluster, oldest first."""
        return [pid for pid, command in self._commands() if version.EXECUTOR in command]

    def python_workers(self) -> list[int]:
        """The pids of the Python workers that run (PROCESS), oldest first."""
        return [pid for pid, command in self._commands() if "runners.spark.boot" in command]

    # -- what can be done to it ------------------------------------------------------------------

    def start(self, settings: SparkSettings) -> None:
        """Starts all servers and waits until they are ready, for at most 90 seconds.

        Raises ClusterFailed, with the line of a log that says why, and Unavailable when Java or
        Maven is missing; no server is left then.
        """
        java_command()
        jars = jars_of(version.POM, self._launch)
        with self._servers.locked():
            if self.exists and self.running():
                raise ClusterFailed(
                    f"Spark runs in {self.folder} already (job server {self.job_server_address})."
                    " Use it, or end it first with `payment-pipeline spark down`."
                )
            ports = _ports_of(self.folder / "ports.json", settings)
            self._servers.begin(
                {"settings": asdict(settings), "ports": asdict(ports)}, ("conf", *_SCRATCH)
            )
            try:
                self._write_files(jars)
                if settings.cluster:
                    self._servers.start(MASTER, servers.master(jars, self.folder, ports), {})
                    for number in range(len(WORKER_HOSTS)):
                        self._start_worker(jars, number)
                self._start_job_server(jars)
                self._servers.wait_until(self._is_ready, _START_SECONDS, "Spark")
            except BaseException:
                self._servers.end(_SCRATCH)
                raise

    def stop(self) -> list[ServerProcess]:
        """Ends all servers at once (SIGKILL), and returns those that ran. Logs stay."""
        with self._servers.locked():
            if not self.exists:
                return []
            left = [*self.executors(), *self.python_workers()]
            ended = self._servers.end(_SCRATCH)
            for pid in left:
                send_signal(pid, signal.SIGKILL)
            return ended

    def kill_job_server(self) -> None:
        """SIGKILL to Beam's job server: the driver of Spark ends with it, and its job."""
        self._servers.kill_newest(JOB_SERVER)

    def start_job_server(self) -> None:
        """Starts it again at its old address, and waits until it answers."""
        jars = jars_of(version.POM, self._launch)
        with self._servers.locked():
            self._servers.forget_ended()
            self._start_job_server(jars)
        self._servers.wait_until(
            lambda: listens(self.job_server_address), _START_SECONDS, "the job server"
        )

    # --------------------------------------------------------------------------------------------

    @property
    def _ports(self) -> SparkPorts:
        ports = self._servers.started_with["ports"]
        return SparkPorts(
            **{
                **ports,
                "workers": tuple(ports["workers"]),
                "worker_pages": tuple(ports["worker_pages"]),
            }
        )

    def _commands(self) -> list[tuple[int, str]]:
        """pid and command line of every process that belongs to this folder."""
        return [(pid, text) for pid, text in command_lines() if str(self.folder) in text]

    def _is_ready(self) -> bool:
        if not listens(self.job_server_address):
            return False
        return all(
            _REGISTERED in Path(process.log).read_text(errors="replace")
            for process in self.running(WORKER)
        )

    def _start_job_server(self, jars: Path) -> None:
        command = servers.job_server(jars, self.folder, self.settings, self._ports)
        self._servers.start(JOB_SERVER, command, {"SPARK_LOCAL_IP": WORKER_HOSTS[0]})

    def _start_worker(self, jars: Path, number: int) -> None:
        command = servers.worker(number, jars, self.folder, self.settings, self._ports)
        self._servers.start(WORKER, command, servers.environment_of_worker(number, self.folder))

    def _write_files(self, jars: Path) -> None:
        servers.write_logging(self.folder)
        # An executor's class path is what lies in SPARK_HOME/jars.
        home = self.folder / "home" / "jars"
        home.unlink(missing_ok=True)
        home.symlink_to(jars, target_is_directory=True)
        worker = self.folder / _WORKER_FILE
        variables = f"PYTHONPATH={shlex.quote(python_path())}"
        marked = f"--folder={shlex.quote(str(self.folder))}"
        worker.write_text(
            f"#!/bin/sh\n{variables} exec {shlex.quote(sys.executable)} -m runners.spark.boot"
            f' {marked} "$@"\n'
        )
        os.chmod(worker, 0o700)


def _ports_of(file: Path, settings: SparkSettings) -> SparkPorts:
    workers = len(WORKER_HOSTS) if settings.cluster else 0
    job_server, master, page, *of_workers = ports_of(file, 3 + 2 * workers)
    return SparkPorts(
        job_server, master, page, tuple(of_workers[:workers]), tuple(of_workers[workers:])
    )
