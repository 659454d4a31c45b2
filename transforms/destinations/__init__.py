"""Where rows go. One contract (transforms/write_streams.py), one test suite, one class per destination."""

from __future__ import annotations

from transforms.destinations.duckdb import DuckDBDestination
from transforms.errors import UsageError


def open_destination(url: str) -> DuckDBDestination:
    """The destination of `--destination`; use it as a context manager. Raises UsageError naming what is allowed."""
    kind, _, path = url.partition(":")
    if kind != "duckdb" or not path:
        raise UsageError(f"--destination={url}: allowed is duckdb:PATH, the path of a DuckDB file on this machine.")
    return DuckDBDestination(path)
