"""Processes that outlive the command that started them, and are ended by another one.

A pid alone does not name a process: it may be another one by now. So its start time is kept beside
it, and compared before a signal is sent.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_END_SECONDS: Final = 10.0
_PAUSE_SECONDS: Final = 0.02


class ClusterFailed(RuntimeError):
    """A server, or the cluster, is not as it was asked to be; the message says why."""


_children: Final[dict[int, subprocess.Popen[bytes]]] = {}
"""What this process has started: it must also wait for it, else the entry of the pid stays."""


@dataclass(frozen=True)
class ServerProcess:
    """One server in a process group of its own.

    started: when, as the system says it; with the pid it names one process. log: its standard
    output and error.
    """

    role: str
    pid: int
    started: str
    log: str

    def runs(self) -> bool:
        """Whether this very process is still there."""
        if child := _children.get(self.pid):
            child.poll()
        return _start_time(self.pid) == self.started

    def children(self) -> list[int]:
        """The pids of the other processes in its group, oldest first."""
        found = []
        for line in _ps("-A", "-o", "pid=,pgid=,stat=").splitlines():
            pid, group, state = line.split()
            if int(group) == self.pid != int(pid) and not state.startswith("Z"):
                found.append(int(pid))
        return sorted(found)

    def send(self, number: int) -> None:
        """Sends a signal to its process group; nothing if the process is not there any more."""
        if self.runs():
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to its process group. Raises ClusterFailed if it is there 10 seconds later."""
        self.send(signal.SIGKILL)
        deadline = time.monotonic() + _END_SECONDS
        while self.runs():
            if time.monotonic() > deadline:
                raise ClusterFailed(
                    f"{self.role}, process {self.pid}, does not end {_END_SECONDS:.0f} s after"
                    " SIGKILL. Look at `ps`; a process that waits for a disk cannot end."
                )
            time.sleep(_PAUSE_SECONDS)


def start_process(
    role: str, command: Sequence[str], log: Path, environment: Mapping[str, str]
) -> ServerProcess:
    """Starts a command in a process group of its own, with the variables added to its environment.

    Raises ClusterFailed if it has ended at once.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, **environment},
        )
    _children[child.pid] = child
    started = _start_time(child.pid)
    if started is None:
        raise ClusterFailed(f"{role} has ended at once with status {child.wait()}; see {log}")
    return ServerProcess(role, child.pid, started, str(log))


def command_lines() -> list[tuple[int, str]]:
    """The pid and the whole command line of every process, oldest first."""
    found = []
    for line in _ps("-A", "-ww", "-o", "pid=,args=").splitlines():
        pid, _, text = line.strip().partition(" ")
        found.append((int(pid), text))
    return sorted(found)


def send_signal(pid: int, number: int) -> None:
    """Sends a signal to one process; nothing if it is not there any more."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _start_time(pid: int) -> str | None:
    """When a process was started; None if there is none, or if it has ended.

    Linux: the boot's id, and clock ticks since the boot (field 22 of
    https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html). Elsewhere: as `ps` shows it.
    """
    if Path("/proc/self/stat").exists():
        try:
            # The command's name, in parentheses, may contain blanks and parentheses itself.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"
    state, _, moment = _ps("-o", "stat=,lstart=", "-p", str(pid)).strip().partition(" ")
    return moment.strip() if state and not state.startswith("Z") else None


def _ps(*arguments: str) -> str:
    command = [shutil.which("ps") or "/bin/ps", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout
