"""Datasets and tables over one embedded DuckDB: a dataset is a schema, a table's resource is kept
in DuckDB as the table's comment.

One lock serialises everything that changes tables. BigQuery is laxer
(https://cloud.google.com/bigquery/docs/data-manipulation-language): statements run under snapshot
isolation, of two UPDATE, DELETE or MERGE that touch one table at a time the later is retried or
fails, and INSERT statements never conflict. Who relies on one winner sees one winner here as well.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import duckdb

from tests.bigquery_stand_in.clock import Clock
from tests.bigquery_stand_in.errors import duplicate, invalid_query, not_found
from tests.bigquery_stand_in.fields import Field, duckdb_column
from tests.bigquery_stand_in.sql.macros import MACROS

_HISTORY: Final = "_history"
"""DuckDB's schema of the copies of earlier rows; BigQuery's side does not see it."""


@dataclass
class Table:
    """A table or view. resource: what REST answers, without counts; version: changes with the rows,
    schema_version with the columns. past: (moment of a change, name of a copy of the rows before
    it, None where no history is kept), in the order of time.
    """

    dataset: str
    name: str
    resource: dict[str, Any]
    version: int = 0
    schema_version: int = 0
    last_streamed: datetime | None = None
    sizes: dict[Any, int] = field(default_factory=dict)
    created: datetime | None = None
    past: list[tuple[datetime, str | None]] = field(default_factory=list)

    @property
    def fields(self) -> list[Field]:
        return list(self.resource["schema"]["fields"])

    @property
    def view_query(self) -> str | None:
        """GoogleSQL of a view; None for a table."""
        view = self.resource.get("view")
        return view["query"] if view else None

    @property
    def sql_name(self) -> str:
        return f'"{self.dataset}"."{self.name}"'

    def rows_at(self, moment: datetime) -> str:
        """DuckDB's name of the rows at a moment that is not in the future. Raises RestFailure."""
        if self.created is not None and moment < self.created:
            raise invalid_query(
                f"Invalid snapshot time {moment} for table {self.dataset}.{self.name}. Cannot read"
                f" before {self.created}."
            )
        copies = [copy for changed, copy in self.past if moment < changed]
        if not copies:
            return self.sql_name
        if copies[0] is None:
            raise invalid_query(
                f"the stand-in has forgotten what {self.dataset}.{self.name} was at {moment}: start"
                " it with keep_history=True"
            )
        return copies[0]


class Warehouse:
    """All state behind both servers, apart from write streams and jobs.

    keep_history: each change of a table copies its rows first, for FOR SYSTEM_TIME AS OF.
    """

    def __init__(
        self, project: str, database: str, clock: Clock, keep_history: bool = False
    ) -> None:
        self.project = project
        self.clock = clock
        self._keep_history = keep_history
        self._latest = clock()
        self._copies = 0
        self.writing = threading.RLock()
        self._connection = duckdb.connect(database)
        self._connection.execute("SET TimeZone='UTC'")
        for macro in MACROS:
            self._connection.execute(macro)
        if keep_history:
            self._connection.execute(f"CREATE SCHEMA IF NOT EXISTS {_HISTORY}")
        self.datasets: dict[str, dict[str, Any]] = {}
        self.tables: dict[tuple[str, str], Table] = {}
        self._load()

    def close(self) -> None:
        self._connection.close()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own, for one thread."""
        cursor = self._connection.cursor()
        cursor.execute("SET TimeZone='UTC'")
        return cursor

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The only way to change tables: alone, and as a whole or not at all."""
        with self.writing, self.cursor() as cursor:
            cursor.begin()
            try:
                yield cursor
                cursor.commit()
            except duckdb.TransactionException:
                raise  # a failed commit has rolled back already
            except BaseException:
                cursor.rollback()
                raise

    @contextmanager
    def change(self, table: Table) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction that changes the rows of one table, at a moment that no other has."""
        with self.writing:
            copy = None
            with self.transaction() as cursor:
                if self._keep_history:
                    self._copies += 1
                    copy = f"{_HISTORY}.rows_{self._copies}"
                    cursor.execute(f"CREATE TABLE {copy} AS SELECT * FROM {table.sql_name}")
                yield cursor
            table.version += 1
            table.past.append((self._later(), copy))
            if not self._keep_history:
                del table.past[:-1]

    def now(self) -> datetime:
        """The clock, but never before a change that is done: a test's clock may stand still."""
        with self.writing:
            self._latest = max(self._latest, self.clock())
            return self._latest

    def _later(self) -> datetime:
        """A moment after every one that `now` has answered."""
        with self.writing:
            self._latest = max(self._latest + timedelta(microseconds=1), self.clock())
            return self._latest

    def table(self, dataset: str, name: str) -> Table:
        """Raises RestFailure (notFound)."""
        found = self.tables.get((dataset, name))
        if found is None:
            raise not_found(f"Table {self.project}:{dataset}.{name}")
        return found

    def create_dataset(self, name: str, resource: dict[str, Any]) -> None:
        if name in self.datasets:
            raise duplicate(f"Dataset {self.project}:{name}")
        with self.transaction() as cursor:
            cursor.execute(f'CREATE SCHEMA IF NOT EXISTS "{name}"')
        self.datasets[name] = resource

    def drop_dataset(self, name: str) -> None:
        with self.transaction() as cursor:
            cursor.execute(f'DROP SCHEMA "{name}" CASCADE')
        del self.datasets[name]
        for key in [key for key in self.tables if key[0] == name]:
            del self.tables[key]

    def create_table(
        self,
        cursor: duckdb.DuckDBPyConnection,
        table: Table,
        select: str | None = None,
        parameters: Any = None,
    ) -> None:
        """Within the caller's transaction; `register` follows when that is committed. select:
        DuckDB's SQL of a view or of CREATE TABLE AS.
        """
        if table.view_query is not None:
            cursor.execute(f"CREATE OR REPLACE VIEW {table.sql_name} AS {select}")
        else:
            cursor.execute(
                f"CREATE TABLE {table.sql_name} ({', '.join(map(duckdb_column, table.fields))})"
            )
            if select is not None:
                cursor.execute(f"INSERT INTO {table.sql_name} {select}", parameters or {})
        self.save_resource(cursor, table)

    def save_resource(self, cursor: duckdb.DuckDBPyConnection, table: Table) -> None:
        kind = "VIEW" if table.view_query is not None else "TABLE"
        text = json.dumps(table.resource).replace("'", "''")
        cursor.execute(f"COMMENT ON {kind} {table.sql_name} IS '{text}'")

    def register(self, table: Table) -> None:
        table.created = self._later()
        self.tables[table.dataset, table.name] = table

    def drop_table(self, table: Table) -> None:
        with self.transaction() as cursor:
            cursor.execute(
                f"DROP {'VIEW' if table.view_query is not None else 'TABLE'} {table.sql_name}"
            )
        del self.tables[table.dataset, table.name]

    def _load(self) -> None:
        """A database file that an earlier process has left."""
        found = self._connection.execute(
            "SELECT schema_name, table_name, comment FROM duckdb_tables() UNION ALL"
            " SELECT schema_name, view_name, comment FROM duckdb_views() WHERE NOT internal"
        ).fetchall()
        for dataset, name, comment in found:
            if comment is not None:
                self.datasets.setdefault(dataset, {"location": "US"})
                self.register(Table(dataset, name, json.loads(comment)))
