"""Where rows go. One contract (transforms/write_streams.py), one test suite, one class per destination."""

from __future__ import annotations

from pathlib import Path

from transforms.destinations.duckdb import DuckDBDestination
from transforms.errors import UsageError


def open_destination(url: str, must_exist: bool = False) -> DuckDBDestination:
    """The destination of `--destination`; use it as a context manager. Raises UsageError naming what is allowed.

    must_exist: for commands that only look, so that a wrong name is an error, not a new and empty destination.
    """
    kind, _, path = url.partition(":")
    if kind != "duckdb" or not path:
        raise UsageError(f"--destination={url}: allowed is duckdb:PATH, the path of a DuckDB file on this machine.")
    if must_exist and not Path(path).is_file():
        raise UsageError(f"--destination={url}: there is no such file. Give the path that run has written to.")
    return DuckDBDestination(path)
