"""`payment-pipeline run` on Spark as a process of its own, and what it writes."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from runners.spark.cluster import SparkServers
from tests.support.forked_command import ROOT, ForkedCommand
from tests.support.spark_faults import environment

SECONDS = 300
"""The longest that a test waits for one command."""

_LOOK_SECONDS = 0.05


class SparkCommand:
    """Runs of one topic into one destination.

    destination: its arguments. processes: whether Python workers are processes of the executors.
    pool: HOST:PORT of the server that starts them; None: none does.
    program: a module, which takes these arguments before those of `run`.
    """

    def __init__(
        self,
        servers: SparkServers,
        kafka: str,
        topic: str,
        destination: Sequence[str],
        folder: Path,
        processes: bool = False,
        pool: str | None = None,
        program: Sequence[str] = ("tests.support.spark_faults",),
    ) -> None:
        self.servers = servers
        self.folder = folder
        self._source = [f"--bootstrap_servers={kafka}", f"--topic={topic}", "--idle_timeout=never"]
        self._destination = list(destination)
        self._processes, self._pool = processes, pool
        self._module, *self._before = program
        self._children: list[ForkedCommand] = []
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def log(self) -> str:
        """What all commands so far have written."""
        files = sorted(self.folder.glob("command-*.log"))
        return "".join(file.read_text(errors="replace") for file in files)

    def start(self, *flags: str, faults: Sequence[str] = ()) -> ForkedCommand:
        """Starts `run` and does not wait for it. faults: of tests/support/spark_faults.py."""
        variables = environment(self.folder, *faults)
        arguments = [
            *self._before, "run", *self._source, *self._destination, "--runner=SparkRunner",
            f"--job_endpoint={self.servers.job_server_address}", *self._workers(variables), *flags,
        ]  # fmt: skip
        with (self.folder / f"command-{len(self._children) + 1:02}.log").open("wb") as log:
            variables = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
            child = ForkedCommand(self._module, arguments, log, variables=variables)
        self._children.append(child)
        return child

    def run(self, *flags: str, faults: Sequence[str] = ()) -> int:
        """Its exit status; the log is printed, which pytest shows where a test fails."""
        return self.ended(self.start(*flags, faults=faults))

    def ended(self, child: ForkedCommand) -> int:
        """Waits for the end of a command; its exit status."""
        status = child.wait(SECONDS)
        print(f"exit status {status}:\n{self.log[-6000:]}")
        return status

    def wait_for(self, what: str, holds: Callable[[], bool]) -> None:
        """Raises AssertionError with the log when it does not come true."""
        deadline = time.monotonic() + SECONDS
        while not holds():
            assert time.monotonic() < deadline, f"waited for: {what}\n{self.log[-6000:]}"
            time.sleep(_LOOK_SECONDS)

    def kill(self) -> None:
        """SIGKILL to all commands that still run."""
        for child in self._children:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait(10)

    def _workers(self, variables: Mapping[str, str]) -> list[str]:
        if self._pool is not None:
            return ["--environment_type=EXTERNAL", f"--environment_config={self._pool}"]
        if not self._processes:
            return []
        worker = self.folder / "worker"
        set_ = " ".join(f"{key}={shlex.quote(value)}" for key, value in variables.items())
        program = f"{sys.executable} -m tests.support.spark_faults"
        worker.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} {set_} exec {program} "$@"\n')
        worker.chmod(0o700)
        config = json.dumps({"command": str(worker)})
        return ["--environment_type=PROCESS", f"--environment_config={config}"]
