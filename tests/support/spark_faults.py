"""A run, or a Python worker of Spark, that fails at an exact point, once.

`python -m tests.support.spark_faults run --topic=...` is `payment-pipeline run`; with the arguments
of a worker it is that. FAULTS in the environment says where and how: POINT:COUNT:ACTION,...; and
FAULTS_FOLDER where it is noted that it has happened, so that no other process does it again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from apache_beam.runners.worker.sdk_worker import SdkHarness

from transforms.destinations.bigquery.reports import BigQueryReports
from transforms.destinations.bigquery.stored_rows import BigQueryStoredRows
from transforms.destinations.bigquery.streams import BigQueryStreams
from transforms.destinations.duckdb.in_flight import InFlight
from transforms.destinations.duckdb.reports import DuckDBReports
from transforms.destinations.duckdb.stored_rows import DuckDBStoredRows
from transforms.read.read_records import RangeSeen

FAULTS: Final = "FAULTS"
FOLDER: Final = "FAULTS_FOLDER"

READ, APPEND, BEFORE_REPORT, AFTER_REPORT = "read", "append", "before-report", "after-report"
CONNECT = "connect"
"""Of a worker to the Spark that has asked for it."""
RAISE, DIE, KILL_PARENT = "raise", "die", "kill-parent"
HALT, STOP = "halt", "stop"
"""For ever, in one thread; the whole process, until SIGCONT. Or kill=PID."""

READ_ONCE: Final = "ranges-read"
"""File with a line for each range that was read to its end."""


IDS_ASKED: Final = "ids-asked"
"""File with a line for each time that the tables were asked for the known ids."""


class FaultOfTheTest(RuntimeError):
    """What a step raises."""


def environment(folder: Path, *faults: str) -> dict[str, str]:
    """The variables that say it. folder: exists."""
    return {FAULTS: ",".join(faults), FOLDER: str(folder)}


def happened(folder: Path) -> list[str]:
    """The faults that have, as POINT-COUNT."""
    return sorted(path.name.removeprefix("fault-") for path in folder.glob("fault-*"))


def ranges_read(folder: Path) -> int:
    """How many ranges were read to their ends, again and again ones included."""
    return _lines(folder / READ_ONCE)


def ids_asked(folder: Path) -> int:
    """How often the tables were asked for the known ids, by the command and by all workers."""
    return _lines(folder / IDS_ASKED)


def _lines(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def _add_line(file: Path) -> None:
    with file.open("a") as lines:
        lines.write(f"{os.getpid()}\n")


class _Fault:
    def __init__(self, text: str, folder: Path) -> None:
        self.point, count, self._action = text.split(":", 2)
        self._count, self._calls = int(count), 0
        self._note = folder / f"fault-{self.point}-{count}"
        self._guard = threading.Lock()

    def called(self) -> None:
        with self._guard:
            self._calls += 1
            if self._calls != self._count:
                return
        try:
            self._note.touch(exist_ok=False)
        except FileExistsError:
            return
        if self._action == RAISE:
            raise FaultOfTheTest(f"at {self.point}")
        if self._action == HALT:
            threading.Event().wait()
        pid = os.getpid()
        if self._action == STOP:
            os.kill(pid, signal.SIGSTOP)
            return
        if self._action == KILL_PARENT:
            pid = os.getppid()
        elif self._action.startswith("kill="):
            pid = int(self._action.removeprefix("kill="))
        os.kill(pid, signal.SIGKILL)


def arm(variables: Mapping[str, str]) -> None:
    """Puts the faults into the steps of this process."""
    folder = Path(variables[FOLDER])
    faults = [_Fault(text, folder) for text in variables[FAULTS].split(",") if text]

    def call(point: str) -> None:
        for fault in faults:
            if fault.point == point:
                fault.called()

    def patch(owner: Any, name: str, before: str | None, after: str | None) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def called(*arguments: Any, **named: Any) -> Any:
            if before:
                call(before)
            result = original(*arguments, **named)
            if after:
                call(after)
            return result

        setattr(owner, name, called)

    patch(SdkHarness, "run", CONNECT, None)
    patch(RangeSeen, "add", READ, None)
    for owner, name in ((InFlight, "wait"), (BigQueryStreams, "send")):
        patch(owner, name, None, APPEND)
    for reports in (DuckDBReports, BigQueryReports):
        patch(reports, "save", BEFORE_REPORT, AFTER_REPORT)
    _note(RangeSeen, "report", folder / READ_ONCE)
    for rows in (DuckDBStoredRows, BigQueryStoredRows):
        _note(rows, "live_ids", folder / IDS_ASKED)


def _note(owner: Any, name: str, file: Path) -> None:
    original: Callable[..., Any] = getattr(owner, name)

    def noted(*arguments: Any, **named: Any) -> Any:
        _add_line(file)
        return original(*arguments, **named)

    setattr(owner, name, noted)


def main(arguments: list[str]) -> int:
    """The run's exit status."""
    arm(os.environ)
    if arguments[:1] == ["run"]:
        from pipeline import cli
        from pipeline.run import read_and_write

        # So that most runs of these tests are large ones: several shards, ranges shuffled.
        read_and_write.RECORDS_OF_A_SHARD = 1_000  # type: ignore[misc]
        return cli.main(arguments)
    from runners.spark import boot

    boot.main(arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
