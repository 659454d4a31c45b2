"""The servers of one folder: started, remembered in a file, and ended by another process.

The file names each server and what it was started with. A lock lets one process at a time change
what runs here.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from runners.maven import Launch
from runners.processes import ClusterFailed, ServerProcess, start_process

_LOGS: Final = "logs"
_PAUSE_SECONDS: Final = 0.1
_RELEVANT: Final = re.compile(r"ERROR|Exception|Caused by:|Error:|in use")


class ServerFolder:
    """Another process that opens the same folder means the same servers.

    folder: absolute. up: the command that starts servers here, for messages. launch: from a command
    to the one that is started.
    """

    def __init__(self, folder: Path, up: str, launch: Launch = list) -> None:
        self.folder = folder
        self._up = up
        self._launch = launch

    @property
    def exists(self) -> bool:
        """Whether servers were started here and not ended by `end`."""
        return self._file.is_file()

    @property
    def started_with(self) -> Mapping[str, Any]:
        """What `begin` has got. Raises ClusterFailed where nothing was started."""
        found: Mapping[str, Any] = self._read()["started_with"]
        return found

    @property
    def processes(self) -> list[ServerProcess]:
        """The servers that were started and not ended by a call here, also those that died."""
        return [ServerProcess(**process) for process in self._read()["processes"]]

    def running(self, role: str | None = None) -> list[ServerProcess]:
        """The servers that run, of one role or all."""
        return [
            process for process in self.processes if role in (None, process.role) and process.runs()
        ]

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time changes what runs here."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed, also when the process dies
            yield

    def begin(self, started_with: Mapping[str, Any], folders: Sequence[str]) -> None:
        """Makes the folders and the file, which has no server yet. Call it within `locked`."""
        for name in (_LOGS, *folders):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._write({"started_with": started_with, "processes": []})

    def start(self, role: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Starts one server, with the variables added to its environment. Within `locked`.

        Raises ClusterFailed if it has ended at once.
        """
        logs = self.folder / _LOGS
        name = role.replace(" ", "-").lower()
        log = logs / f"{name}-{len(list(logs.glob(f'{name}-*.log'))) + 1}.log"
        process = start_process(role, self._launch(command), log, environment)
        self._write_processes([*self.processes, process])

    def end(self, scratch: Sequence[str]) -> list[ServerProcess]:
        """Ends all servers at once (SIGKILL), and returns those that ran. Within `locked`.

        scratch: folders of no use any more, which are removed.
        """
        ended = self.running()
        for process in ended:
            process.kill()
        for name in scratch:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        self._file.unlink()
        return ended

    def newest(self, role: str) -> ServerProcess:
        """The server of a role that was started last and runs. Raises ClusterFailed."""
        running = self.running(role)
        if not running:
            raise ClusterFailed(f"no {role} runs in {self.folder}")
        return running[-1]

    def kill_newest(self, role: str) -> None:
        """SIGKILL to it; the file does not name it any more."""
        victim = self.newest(role)
        victim.kill()
        with self.locked():
            self._write_processes([process for process in self.processes if process != victim])

    def forget_ended(self) -> None:
        """The file does not name those any more that have ended. Within `locked`."""
        self._write_processes([process for process in self.processes if process.runs()])

    def wait_until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Raises ClusterFailed when a server ends, or when `ready` is false for so long.

        what: that is waited for, for the message.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            for process in self.processes:
                if not process.runs():
                    raise ClusterFailed(f"the {process.role} has ended: {relevant_line(process)}")
            if time.monotonic() > deadline:
                lines = [f"{process.role}: {relevant_line(process)}" for process in self.processes]
                raise ClusterFailed(
                    f"{what} is not ready after {seconds:.0f} s; " + "; ".join(lines)
                )
            time.sleep(_PAUSE_SECONDS)

    @property
    def _file(self) -> Path:
        return self.folder / "cluster.json"

    def _read(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._file.read_text())
        except FileNotFoundError as missing:
            raise ClusterFailed(
                f"{self.folder} has no cluster. `{self._up}` starts one."
            ) from missing
        return found

    def _write_processes(self, processes: Sequence[ServerProcess]) -> None:
        self._write({**self._read(), "processes": [asdict(process) for process in processes]})

    def _write(self, content: Mapping[str, Any]) -> None:
        """Replaces the file as a whole."""
        scratch = self._file.with_suffix(".new")
        scratch.write_text(json.dumps(content, indent=1))
        scratch.replace(self._file)


class LocalServers:
    """Servers on this machine, of one folder. Another process that opens it means the same ones.

    A subclass says how they are started.
    """

    def __init__(self, folder: Path, up: str, launch: Launch) -> None:
        """up, launch: see ServerFolder."""
        self.folder = folder.absolute()
        self._servers = ServerFolder(self.folder, up, launch)
        self._launch = launch

    @property
    def exists(self) -> bool:
        """Whether servers were started here, running or not."""
        return self._servers.exists

    @property
    def processes(self) -> list[ServerProcess]:
        """The servers that were started and not ended by a call here, also those that died."""
        return self._servers.processes

    def running(self, role: str | None = None) -> list[ServerProcess]:
        """The servers that run, of one role or all."""
        return self._servers.running(role)


def relevant_line(process: ServerProcess) -> str:
    """The last line of its log that names an error, else the last one; and where the log is."""
    lines = Path(process.log).read_text(errors="replace").splitlines() or ["(empty)"]
    errors = [line for line in lines if _RELEVANT.search(line)]
    return f"{(errors or lines)[-1].strip()} ({process.log})"


def python_path() -> str:
    """PYTHONPATH for Python servers and workers: the steps of a graph lie beside this package."""
    root = str(Path(__file__).absolute().parents[1])
    return os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
