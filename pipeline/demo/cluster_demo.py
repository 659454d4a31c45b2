"""What the demos on Flink and on Spark share: a cluster of their own, and a command that loses it.

The cluster lies in a folder of its own. The command runs beside the demo, which waits for it or
kills it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar

from pipeline.demo.demonstration import Demonstration, say
from pipeline.demo.destination import DemoDestination, demo_destination
from pipeline.demo.embedded_kafka import embedded_kafka
from pipeline.demo.ends_with_parent import ending_with_this_process
from pipeline.interrupt import only_record_signals
from pipeline.servers_command import failed_servers_refuse
from runners.java import java_command
from runners.maven import Launch, jars_of
from transforms.model.errors import GuaranteeError, TryAgainLater

_LOOK_SECONDS: Final = 0.2
_STEP_SECONDS: Final = 240.0


class ClusterDemo(Demonstration, ABC):
    """A demo with one command that runs beside it, in a process group of its own."""

    def __init__(self, kafka: str, destination: DemoDestination) -> None:
        """kafka: its bootstrap servers."""
        super().__init__(kafka, destination)
        self._command: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def play(self) -> None:
        """From an empty cluster to tables that are checked. No command is left, however it ends."""

    @abstractmethod
    def ended_early(self, status: int, what: str) -> str:
        """What a user reads when the command has ended, which should have gone on until `what`."""

    def start_command(self, *arguments: str) -> None:
        """Starts a command that prints to this terminal, and ends with this process."""
        self._command = subprocess.Popen(
            ending_with_this_process([sys.executable, "-m", "pipeline", *arguments]),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill_command(self) -> None:
        """SIGKILL to its process group; nothing where none runs."""
        if self._command is not None:
            os.killpg(self._command.pid, signal.SIGKILL)
            self._command.wait()
            self._command = None

    def interrupt_command(self) -> None:
        """Ctrl-C, for its process group alone."""
        assert self._command is not None
        os.killpg(self._command.pid, signal.SIGINT)

    def end_of_command(self, seconds: float = _STEP_SECONDS) -> int:
        """Its exit status, once it has ended. Raises subprocess.TimeoutExpired after `seconds`."""
        assert self._command is not None
        status = self._command.wait(seconds)
        self._command = None
        return status

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Raises GuaranteeError when the command has ended, TryAgainLater when it does not come."""
        deadline = time.monotonic() + _STEP_SECONDS
        while not holds():
            if self._command is not None and (status := self._command.poll()) is not None:
                raise GuaranteeError(self.ended_early(status, what))
            if time.monotonic() > deadline:
                raise too_late(what)
            time.sleep(_LOOK_SECONDS)


def too_late(what: str) -> TryAgainLater:
    """What was waited for has not come."""
    return TryAgainLater(
        f"waited {_STEP_SECONDS:.0f} s for this: {what}. The machine may be too busy; start the"
        " demo again."
    )


class Servers(Protocol):
    """A cluster of this machine, which may not be started yet."""

    def stop(self) -> object:
        """Ends what runs of it."""


Cluster = TypeVar("Cluster", bound=Servers)


def play_on_cluster(
    name: str,
    pom: Path,
    kind: str,
    cluster_in: Callable[[Path, Launch], Cluster],
    demo_of: Callable[[str, DemoDestination, Cluster], ClusterDemo],
) -> int:
    """0 when the figures in the tables are those of what was sent, else 1.

    name, pom: of what Maven fetches. kind: of the destination. demo_of: takes Kafka's bootstrap
    servers. Raises GuaranteeError where Java 17 or Maven is missing, or a server does not come up;
    TryAgainLater where this machine is too busy for it.
    """
    # The terminal may be closed: the end is that of SIGTERM, with nothing left behind.
    before = signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        with failed_servers_refuse():
            java_command()
            say(f"{name} and Beam's job server come from Maven Central, the first time only")
            jars_of(pom, ending_with_this_process)
            with (
                embedded_kafka() as kafka,
                demo_destination(kind) as destination,
                _in_new_folder(cluster_in) as cluster,
            ):
                demo = demo_of(kafka, destination, cluster)
                demo.play()
                return demo.verdict()
    finally:
        signal.signal(signal.SIGHUP, before)


@contextmanager
def _in_new_folder(cluster_in: Callable[[Path, Launch], Cluster]) -> Iterator[Cluster]:
    """A cluster that is not started yet; neither it nor its folder is left behind."""
    folder = Path(tempfile.mkdtemp(prefix="payment-pipeline-demo-"))
    cluster = cluster_in(folder, ending_with_this_process)
    try:
        yield cluster
    finally:
        only_record_signals()  # another Ctrl-C does not stop the end half way
        cluster.stop()
        shutil.rmtree(folder)
