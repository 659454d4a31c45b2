"""A DuckDB file as a destination: it promises what the contract says, and no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from transforms.destinations.duckdb.checks import DUCKDB_CHECKS
from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.duckdb.reports import DuckDBReports
from transforms.destinations.duckdb.run_ledger import DuckDBRunLedger
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.destinations.duckdb.shard_ledger import DuckDBShardLedger
from transforms.destinations.duckdb.stored_rows import DuckDBStoredRows
from transforms.destinations.duckdb.streams import DuckDBStreams
from transforms.destinations.duckdb.tables import DuckDBTables
from transforms.destinations.sql.pruning import SqlPruning
from transforms.destinations.sql.seeds import SqlSeeds


class DuckDBDestination:
    """A DuckDB file as a destination; see contract/destination.py.

    Only the path is pickled; the file is open while it is in use.
    """

    checks = DUCKDB_CHECKS
    keeps_others_out = True
    streams_per_hour = None
    small_run = None
    max_record_bytes = None
    bytes_read = None
    bytes_billed = None

    def __init__(self, path: str) -> None:
        self.path = path
        self.session = DuckDBSession(path)
        self.tables = DuckDBTables(self.session)
        self.streams = DuckDBStreams(self.session)
        self.runs = DuckDBRunLedger(self.session)
        self.reports = DuckDBReports(self.session)
        self.shards = DuckDBShardLedger(self.session)
        self.seeds = SqlSeeds(DUCKDB, self.query, self._columns_of)
        self.rows = DuckDBStoredRows(self.session, self.seeds)
        self.pruning = SqlPruning(DUCKDB, self.query, self._change)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return (DuckDBDestination, (self.path,))

    def __enter__(self) -> DuckDBDestination:
        self.session.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.session.close()

    @property
    def name(self) -> str:
        return f"duckdb:{self.path}"

    def clock_us(self) -> None:
        return None

    @contextmanager
    def at_one_moment(self) -> Iterator[DuckDBDestination]:
        """Itself: within a transaction every question of this thread has the same snapshot."""
        with self.session.unchanging():
            yield self

    def _change(self, sql: str, values: Mapping[str, Any]) -> None:
        self.session.atomically(lambda cursor: cursor.execute(sql, dict(values)))

    def _columns_of(self, table: str) -> dict[str, str] | None:
        """Of a table or view of the file: column -> type; None where there is none."""
        if not self.session.is_there():
            return None
        found = self.query(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE NOT internal"
            " AND database_name = current_database() AND schema_name = 'main'"
            " AND table_name = $table",
            {"table": table},
        )
        return (
            dict(zip(*(found[name].to_pylist() for name in found.column_names), strict=True))
            or None
        )

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        return self.session.query(sql, dict(parameters or {}))
