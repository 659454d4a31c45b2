"""`python -m MODULE` as a process of its own, without the seconds that its imports take.

All tests of a pytest process share a server that forks (tests/support/fork_server.py).
"""

from __future__ import annotations

import atexit
import functools
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from tests.support.fork_server import Wanted

ROOT = Path(__file__).parents[2]

_START_SECONDS = 120


@functools.cache
def _server() -> socket.socket:
    """Runs until the end of this process, also if that is killed: it sees the socket closed."""
    mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", "tests.support.fork_server", str(its.fileno())]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[its.fileno()],
            start_new_session=True,
        )  # fmt: skip

    def end() -> None:
        mine.close()
        process.wait(10)

    atexit.register(end)
    return mine


class ForkedCommand:
    """Begins at once, in a session of its own; what it is asked is named as in subprocess.Popen.

    output: an open file; errors: another one, if standard error goes there. variables: its
    environment; None: as here.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        output: BinaryIO,
        errors: BinaryIO | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.returncode: int | None = None
        self._answers, theirs = os.pipe()
        wanted = Wanted(module, arguments, dict(os.environ if variables is None else variables))
        try:
            files = [output.fileno(), (errors or output).fileno(), theirs]
            socket.send_fds(_server(), [msgspec.json.encode(wanted)], files)
        finally:
            os.close(theirs)
        self.pid = self._answer(_START_SECONDS)

    def poll(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        if self.returncode is None and self._is_answered(0):
            self.returncode = self._answer(0)
            os.close(self._answers)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """The same, once it is there; raises subprocess.TimeoutExpired."""
        if self.returncode is None and not self._is_answered(timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        status = self.poll()
        assert status is not None
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _is_answered(self, seconds: float) -> bool:
        return bool(select.select([self._answers], [], [], seconds)[0])

    def _answer(self, seconds: float) -> int:
        """The next line. The server writes one at once."""
        deadline = time.monotonic() + seconds
        line = b""
        while not line.endswith(b"\n"):
            if not self._is_answered(max(0.0, deadline - time.monotonic())):
                raise AssertionError("the server that forks does not answer")
            part = os.read(self._answers, 1)
            assert part, "the server that forks has ended"
            line += part
        return int(line)
