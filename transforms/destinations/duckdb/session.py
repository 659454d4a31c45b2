"""The open DuckDB file behind a destination, with one cursor per thread."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Final, TypeVar

import duckdb
import pyarrow as pa

from transforms.destinations.duckdb.open_files import (
    GUARD,
    OpenFile,
    acquire,
    not_opened,
    real_path,
    release,
)
from transforms.model.waiting import waiting_for

_T = TypeVar("_T")

_MET: Final = re.compile("conflict|constraint", re.IGNORECASE)


class ChangesMet(duckdb.TransactionException):
    """A transaction was refused because another one has changed the same rows.

    Where a commit cannot be written, DuckDB raises TransactionException as well.
    """


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
        self._file: OpenFile | None = None

    def open(self) -> None:
        """Opens the file where it is there, and looks whether it could be created elsewhere.

        Raises TryAgainLater when another process holds the file for too long, and UsageError when
        it is no DuckDB file, or cannot be created.
        """
        with GUARD:
            if not self.is_there() and not os.access(
                os.path.dirname(real_path(self.path)), os.W_OK
            ):
                raise not_opened(self.path, "its folder cannot be written to")
            self._users += 1

    def close(self) -> None:
        with GUARD:
            self._users -= 1
            if self._users == 0 and self._file is not None:
                file, self._file = self._file, None
                self._local = threading.local()
                release(file)

    def is_there(self) -> bool:
        """Whether the file exists; opens it if it does."""
        if self._file is None and os.path.exists(self.path):
            self._opened()
        return self._file is not None

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """The thread's own cursor: DuckDB's connections must not be shared between threads."""
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._opened().cursor()
        return cursor

    def _opened(self) -> OpenFile:
        with GUARD:
            if self._file is None:
                self._file = acquire(self.path)
            return self._file

    def on_all_threads(self) -> AbstractContextManager[None]:
        """For statements that run on all cores, in place of the thread that asks.

        With more than one, DuckDB collects the rows of an INSERT by thread and copies them once
        more, and each statement takes more CPU: it is worth it for many rows only.
        """
        return self._opened().on_all_threads()

    def stay_on_one_thread(self) -> None:
        """Rows become visible one append after the other from now on: see open_files.py."""
        self._opened().stay_on_one_thread()

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        with self.on_all_threads(), waiting_for(f"duckdb:{self.path}: a query"):
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
        """Makes the change as one transaction, as a whole or not at all; raises what it raises,
        and ChangesMet.
        """
        cursor = self.cursor()
        cursor.begin()
        try:
            with waiting_for(f"duckdb:{self.path}: a commit"):
                result = change(cursor)
                cursor.commit()
        except BaseException as error:
            with suppress(duckdb.TransactionException):  # a failed commit has rolled back already
                cursor.rollback()
            if isinstance(error, duckdb.TransactionException) and _MET.search(str(error)):
                raise ChangesMet(str(error)) from error
            raise
        return result
