"""The open DuckDB file behind a destination: one connection per process, one cursor per thread.

DuckDB locks the file against every other process, so it is open only while it is in use.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa

from transforms.model.errors import FileInUse, UsageError
from transforms.model.waiting import waiting_for

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
}

_T = TypeVar("_T")

_OPEN: Final[dict[str, tuple[duckdb.DuckDBPyConnection, int]]] = {}
_GUARD: Final = threading.RLock()


class DuckDBSession:
    """The open file that all parts of a DuckDB destination share.

    `open` and `close` are counted: they nest. A file that does not exist is created by the first
    question to it, not by opening: what only looks, or is refused, asks `is_there` first and leaves
    no file behind.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._local = threading.local()
        self._users = 0
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._uses_one_thread = False

    def open(self) -> None:
        """Opens the file where it is there, and looks whether it could be created elsewhere.

        Raises TryAgainLater when another process holds the file for too long, and UsageError when
        it is no DuckDB file, or cannot be created.
        """
        with _GUARD:
            if not self.is_there() and not os.access(os.path.dirname(_real(self.path)), os.W_OK):
                raise _not_opened(self.path, "its folder cannot be written to")
            self._users += 1

    def close(self) -> None:
        with _GUARD:
            self._users -= 1
            if self._users == 0 and self._connection is not None:
                self._connection = None
                self._uses_one_thread = False
                self._local = threading.local()
                release(self.path)

    def is_there(self) -> bool:
        """Whether the file exists; opens it if it does."""
        if self._connection is None and os.path.exists(self.path):
            self._connect()
        return self._connection is not None

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The thread's own cursor: DuckDB's connections must not be shared between threads."""
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connect().cursor()
        return cursor

    def _connect(self) -> duckdb.DuckDBPyConnection:
        with _GUARD:
            if self._connection is None:
                self._connection = acquire(self.path)
            return self._connection

    def use_one_thread(self) -> None:
        """From now on each statement runs on the thread that asks, as long as the file is open.

        With more of them DuckDB collects the rows of an INSERT by thread and copies them once more:
        for the small ones of a stream that costs twice the CPU, and saves no time.
        """
        if not self._uses_one_thread:
            self.cursor().execute("SET threads = 1")
            self._uses_one_thread = True

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        with waiting_for(f"duckdb:{self.path}: a query"):
            return self.cursor().sql(sql, params=parameters or {}).to_arrow_table()

    @contextmanager
    def unchanging(self) -> Iterator[None]:
        """This thread's questions see what its first one sees, and none of them can change it."""
        cursor = self.cursor()
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        try:
            yield
        finally:
            cursor.rollback()

    def atomically(self, change: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        """Makes the change as one transaction, as a whole or not at all; raises what it raises."""
        cursor = self.cursor()
        cursor.begin()
        try:
            with waiting_for(f"duckdb:{self.path}: a commit"):
                result = change(cursor)
                cursor.commit()
        except BaseException:
            with suppress(duckdb.TransactionException):  # a failed commit has rolled back already
                cursor.rollback()
            raise
        return result


def acquire(
    path: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> duckdb.DuckDBPyConnection:
    """The process's connection to `path`, counted.

    Raises TryAgainLater when another process holds the file for too long.
    """
    real = _real(path)
    with _GUARD:
        connection, users = _OPEN.get(real, (None, 0))
        if connection is None:
            connection = _connect(real, clock, sleep)
        _OPEN[real] = (connection, users + 1)
        return connection


def release(path: str) -> None:
    """Gives the connection back; the last one closes the file."""
    real = _real(path)
    with _GUARD:
        connection, users = _OPEN[real]
        if users > 1:
            _OPEN[real] = (connection, users - 1)
            return
        del _OPEN[real]
        connection.close()


def _real(path: str) -> str:
    """The path that stands for the file, whatever links lead to it."""
    return os.path.realpath(path)


def _not_opened(path: str, why: object) -> UsageError:
    return UsageError(
        f"--destination=duckdb:{path}: cannot be opened as a DuckDB file ({why})."
        " Give the path of a file that run has written to, or of"
        " one that does not exist yet in a folder that can be written to."
    )


def _connect(
    path: str, clock: Callable[[], float], sleep: Callable[[float], None]
) -> duckdb.DuckDBPyConnection:
    deadline = clock() + LOCK_WAIT_SECONDS
    while True:
        try:
            return duckdb.connect(path, config=_CONFIG)
        except duckdb.IOException as error:
            if _LOCKED not in str(error):
                raise _not_opened(path, error) from error
            if clock() >= deadline:
                holder = _HOLDER.search(str(error))
                who = f"process {holder[1]}" if holder else "another process"
                raise FileInUse(
                    f"--destination=duckdb:{path}: {who} has the file open, and only one can; wait"
                    " for it to end, or end it, and start again.",
                    int(holder[1]) if holder else None,
                ) from error
            sleep(_RETRY_SECONDS)
