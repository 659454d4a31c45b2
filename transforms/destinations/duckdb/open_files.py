"""The DuckDB files that this process has open.

DuckDB locks a file against every other process, so it is open only while it is in use. `--every`
opens and closes one each tick: an instance of DuckDB costs 25 ms of CPU, a file that is attached to
one 2 ms. So the instance that was used last is kept, without its file, for some hundred times.
"""

from __future__ import annotations

import atexit
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import duckdb

from transforms.model.errors import FileInUse, UsageError

LOCK_WAIT_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 0.1
_LOCKED: Final = "Could not set lock on file"
_HOLDER: Final = re.compile(r"\(PID (\d+)\)")
_CONFIG: Final[dict[str, str | bool | int | float | list[str]]] = {
    # Commits stream through; a cold start's aggregate spills to disk beyond it. DuckDB's default,
    # 80 % of the machine's memory, is too much beside other processes.
    "memory_limit": "1GB",
    "preserve_insertion_order": "false",
    # Pending rows are written, read once and deleted: a checkpoint in between (the default is every
    # 16 MB) would write them twice.
    "wal_autocheckpoint": "1GB",
    # Statements about a few rows take less CPU, and no more time, on the thread that asks.
    "threads": 1,
}

_RESERVED: Final = ("information_schema", "pg_catalog")
"""Names that DuckDB attaches a file by, and then does not find."""

_TIMES_KEPT: Final = 500
"""An instance grows by some 5 KB with each file that was written to and detached."""

GUARD: Final = threading.RLock()
_OPEN: Final[dict[str, OpenFile]] = {}
_KEPT: Final[dict[str, tuple[duckdb.DuckDBPyConnection, int]]] = {}
"""At most one instance: path -> its connection, and how often it was kept so far."""


class OpenFile:
    """A file, attached to an instance of DuckDB that has no other one."""

    def __init__(
        self, path: str, clock: Callable[[], float], sleep: Callable[[float], None]
    ) -> None:
        """path: without links. Raises FileInUse, and UsageError where it is no DuckDB file."""
        self.users = 0
        self.path = path
        kept = _KEPT.pop(path) if path in _KEPT else (_new_instance(path), 0)
        self._instance, self._times_kept = kept
        try:
            _attach(self._instance, path, clock, sleep)
            self._name = _name_of_file(self._instance)
            self._connection = self._instance.cursor()
        except BaseException:
            self._instance.close()
            raise
        self._uses_all_threads = self._stays_on_one_thread = False
        self._questions = 0

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A new one, of one thread: DuckDB's connections must not be shared between threads."""
        cursor = self._connection.cursor()
        cursor.execute(f"USE {self._name}")
        return cursor

    @contextmanager
    def on_all_threads(self) -> Iterator[None]:
        """Statements within it run on all cores, unless rows are appended for a long time: to take
        the cores from a question, DuckDB would let an append of another thread wait for its answer.
        """
        with GUARD:
            self._questions += 1
            if not self._stays_on_one_thread:
                self._use_all_threads(True)
        try:
            yield
        finally:
            with GUARD:
                self._questions -= 1

    def stay_on_one_thread(self) -> None:
        """From now on each statement runs on the thread that asks, but for those that run."""
        if self._stays_on_one_thread and not self._uses_all_threads:
            return
        with GUARD:
            self._stays_on_one_thread = True
            if not self._questions:
                self._use_all_threads(False)

    def _use_all_threads(self, use: bool) -> None:
        if use != self._uses_all_threads:
            self._instance.execute("RESET threads" if use else "SET threads = 1")
            self._uses_all_threads = use

    def close(self) -> None:
        """Rolls back what is not committed, and lets go of the file.

        What is in its log only is written to it, or stays there for the next one that opens it.
        """
        try:
            self._connection.close()  # and all of its cursors
            self._instance.execute(f"DETACH {self._name}")
            self._use_all_threads(False)
        except duckdb.Error:
            # The disk is full, say. An error that led here is the one to be told; what is committed
            # is in the log. The end of an instance lets go of its file whatever happens.
            self._instance.close()
            return
        _end_kept()
        # What it has spilled to disk is a folder that goes with the instance.
        if self._times_kept == _TIMES_KEPT or os.path.exists(_spills_to(self.path)):
            self._instance.close()
        else:
            _KEPT[self.path] = self._instance, self._times_kept + 1


def _end_kept() -> None:
    for instance, _ in _KEPT.values():
        instance.close()
    _KEPT.clear()


# DuckDB complains, at length, of connections that are there when the interpreter ends.
atexit.register(_end_kept)


def acquire(
    path: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> OpenFile:
    """The file as it is open in this process, counted.

    Raises FileInUse when another process holds the file for too long, and UsageError.
    """
    real = real_path(path)
    with GUARD:
        if real not in _OPEN:
            _OPEN[real] = OpenFile(real, clock, sleep)
        _OPEN[real].users += 1
        return _OPEN[real]


def release(file: OpenFile) -> None:
    """Gives the file back; the last one closes it."""
    with GUARD:
        file.users -= 1
        if file.users == 0:
            del _OPEN[file.path]
            file.close()


def real_path(path: str) -> str:
    """The path that stands for the file, whatever links lead to it."""
    return os.path.realpath(path)


def not_opened(path: str, why: object) -> UsageError:
    """The refusal of a path that cannot be opened. why: in a few words."""
    return UsageError(
        f"--destination=duckdb:{path}: cannot be opened as a DuckDB file ({why})."
        " Give the path of a file that run has written to, or of"
        " one that does not exist yet in a folder that can be written to."
    )


def _new_instance(path: str) -> duckdb.DuckDBPyConnection:
    """Of DuckDB, for this file, which is not attached yet."""
    return duckdb.connect(":memory:", config={**_CONFIG, "temp_directory": _spills_to(path)})


def _spills_to(path: str) -> str:
    return f"{path}.tmp"


def _attach(
    instance: duckdb.DuckDBPyConnection,
    path: str,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    deadline = clock() + LOCK_WAIT_SECONDS
    quoted = path.replace("'", "''")
    name = " AS file" if Path(path).stem.lower() in _RESERVED else ""
    while True:
        try:
            instance.execute(f"ATTACH '{quoted}'{name}")
            return
        except duckdb.BinderException:
            # The file's own name, which its tables and views may be called by, is one of DuckDB's.
            if name:
                raise
            name = " AS file"
        except (duckdb.IOException, duckdb.ResourceInUseException) as error:
            if isinstance(error, duckdb.IOException) and _LOCKED not in str(error):
                raise not_opened(path, error) from error
            if clock() >= deadline:
                raise _in_use(path, error) from error
            sleep(_RETRY_SECONDS)


def _in_use(path: str, error: duckdb.Error) -> FileInUse:
    holder = _HOLDER.search(str(error))
    if isinstance(error, duckdb.ResourceInUseException):
        who = "another connection of this process"
    else:
        who = f"process {holder[1]}" if holder else "another process"
    return FileInUse(
        f"--destination=duckdb:{path}: {who} has the file open, and only one can; wait"
        " for it to end, or end it, and start again.",
        int(holder[1]) if holder else None,
    )


def _name_of_file(instance: duckdb.DuckDBPyConnection) -> str:
    ((name,),) = instance.execute(
        "SELECT database_name FROM duckdb_databases()"
        " WHERE NOT internal AND database_name <> 'memory'"
    ).fetchall()
    return '"' + str(name).replace('"', '""') + '"'
