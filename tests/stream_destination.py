"""The destinations that the streaming protocol is tested on. A further one needs an entry here, and runs every test of tests/**/test_stream*.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from tests.stream_log import SCHEMA
from transforms.destinations.duckdb import DuckDBDestination


@contextmanager
def duckdb_destination(folder: Path) -> Iterator[Any]:
    with DuckDBDestination(str(folder / "stream.duckdb")) as one:
        one.create_tables(SCHEMA)
        yield one


DESTINATIONS: dict[str, Callable[[Path], AbstractContextManager[Any]]] = {"duckdb": duckdb_destination}
"""Name -> an open destination of its own with its tables, in an empty folder."""


def tamper(destination: Any, sql: str) -> None:
    """Changes the tables behind the protocol's back."""
    destination._cursor().execute(sql)
