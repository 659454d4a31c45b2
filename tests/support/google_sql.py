"""Tables of a DuckDB file in BigQuery's stand-in, so that a question can be asked in both dialects
of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.options.schema_file import load_schema
from tests.bigquery_stand_in.stand_in import BigQueryStandIn
from tests.support.bigquery import settings_of
from transforms.destinations.bigquery.checks import bigquery_checks
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.stored_rows import BigQueryStoredRows
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.tables import GAPS, ROW_TABLES, RUNS, TOTALS


class GoogleSql:
    """Tables of a DuckDB file as BigQuery has them, and the answers to GoogleSQL on them."""

    def __init__(self, stand_in: BigQueryStandIn, destination: BigQueryDestination) -> None:
        self._stand_in = stand_in
        self._destination = destination
        self.tables = destination.tables
        self.name = destination.settings.table
        self.checks = bigquery_checks(self.name)
        self.rows = BigQueryStoredRows(self.query, self.name, destination.seeds)
        self.asked: list[str] = []

    def query(self, sql: str, parameters: Any = None) -> pa.Table:
        self.asked.append(sql)
        return self._destination.query(sql, parameters)

    def load(self, path: Path) -> None:
        self._stand_in.sql(f"ATTACH '{path}' AS source (READ_ONLY)")
        for table in (*ROW_TABLES, GAPS, TOTALS):
            self._fill(table, "*")
        streams = "list_transform(t.commit_groups, lambda streams: struct_pack(streams := streams))"
        fields = f'"table" := t."table", "rows" := t."rows", commit_groups := {streams}'
        tables = f"list_transform(tables, lambda t: struct_pack({fields}))"
        self._fill(RUNS, f"* REPLACE ({tables} AS tables)")
        self._stand_in.sql("DETACH source")
        self.asked.clear()

    def _fill(self, table: str, columns: str) -> None:
        mine = self._destination.settings.prefix + table
        self._stand_in.sql(f"DELETE FROM {mine}")
        self._stand_in.sql(f"INSERT INTO {mine} BY NAME SELECT {columns} FROM source.{table}")


class AskedInGoogleSql:
    """A destination for `check`: DuckDB's ledger, and GoogleSql's answers to its questions."""

    def __init__(self, ledger: DuckDBDestination, tables: GoogleSql) -> None:
        self.tables = ledger.tables
        self.runs = ledger.runs
        self.checks = tables.checks
        self.query = tables.query

    @contextmanager
    def at_one_moment(self) -> Iterator[AskedInGoogleSql]:
        """Nobody else changes the tables."""
        yield self


@pytest.fixture(scope="module")
def google_sql() -> Iterator[GoogleSql]:
    with (
        BigQueryStandIn("test-project", "payments") as stand_in,
        BigQueryDestination(settings_of(stand_in, prefix="eu_")) as destination,
    ):
        destination.tables.create(load_schema(None))
        yield GoogleSql(stand_in, destination)
