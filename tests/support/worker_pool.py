"""A server that starts Python workers, with faults in these (tests/support/spark_faults.py)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from runners.ports import free_ports, listens
from tests.support.child_process import ending_with_this_process

ROOT = Path(__file__).parents[2]

_OF_EACH_WORKER = """\
import os, sys
if sys.orig_argv[1:2] == ["-c"]:
    from tests.support.spark_faults import arm
    arm(os.environ)
"""


class WorkerPool:
    """folder: for what it writes. variables: say the faults of its workers."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (self._port,) = free_ports(1)
        self.address = f"127.0.0.1:{self._port}"
        self._log = folder / "worker-pool.log"
        (folder / "sitecustomize.py").write_text(_OF_EACH_WORKER)
        path = os.pathsep.join((str(folder), str(ROOT)))
        self._environment = {**os.environ, **variables, "PYTHONPATH": path}
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Does not wait until it answers."""
        command = [sys.executable, "-m", "runners.worker_pool", str(self._port)]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                ending_with_this_process(command),
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=self._environment,
            )  # fmt: skip

    @property
    def answers(self) -> bool:
        """Whether it serves."""
        return listens(self.address)

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        if self._server is not None:
            os.killpg(self._server.pid, signal.SIGKILL)
            self._server.wait(10)
            self._server = None
