"""Tables of a DuckDB file in BigQuery's stand-in, so that a question can be asked in both dialects
of the same rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.bigquery_stand_in.stand_in import BigQueryStandIn
from transforms.destinations.bigquery.checks import bigquery_checks
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.destinations.bigquery.stored_rows import BigQueryStoredRows
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.schema import load_schema
from transforms.model.tables import GAPS, ROW_TABLES, RUNS, TOTALS


class GoogleSql:
    """Tables of a DuckDB file as BigQuery has them, and the answers to GoogleSQL on them."""

    def __init__(self, stand_in: BigQueryStandIn, destination: BigQueryDestination) -> None:
        self._stand_in = stand_in
        self._destination = destination
        self.name = destination.settings.table
        self.checks = bigquery_checks(self.name)
        self.rows = BigQueryStoredRows(self.query, self.name)
        self.asked: list[str] = []

    def query(self, sql: str, parameters: Any = None) -> pa.Table:
        self.asked.append(sql)
        return self._destination.query(sql, parameters)

    def load(self, path: Path) -> None:
        self._stand_in.sql(f"ATTACH '{path}' AS source (READ_ONLY)")
        for table in (*ROW_TABLES, GAPS, TOTALS):
            self._fill(table, "*")
        streams = "list_transform(t.commit_groups, lambda streams: struct_pack(streams := streams))"
        tables = f'list_transform(tables, lambda t: struct_pack("table" := t."table", "rows" := t."rows", commit_groups := {streams}))'
        self._fill(RUNS, f"* REPLACE ({tables} AS tables)")
        self._stand_in.sql("DETACH source")
        self.asked.clear()

    def _fill(self, table: str, columns: str) -> None:
        mine = self._destination.settings.prefix + table
        self._stand_in.sql(f"DELETE FROM {mine}")
        self._stand_in.sql(f"INSERT INTO {mine} BY NAME SELECT {columns} FROM source.{table}")


class AskedInGoogleSql:
    """A destination for `check`: its ledger is DuckDB's, its questions are answered by GoogleSql."""

    def __init__(self, ledger: DuckDBDestination, tables: GoogleSql) -> None:
        self._ledger = ledger
        self.checks = tables.checks
        self.query = tables.query

    def has_tables(self) -> bool:
        return self._ledger.has_tables()

    def is_empty(self) -> bool:
        return self._ledger.is_empty()

    def read_runs(self) -> list[RunRecord]:
        return self._ledger.read_runs()


@pytest.fixture(scope="module")
def google_sql() -> Iterator[GoogleSql]:
    with BigQueryStandIn("test-project", "payments") as stand_in:
        endpoints = {
            "api_endpoint": stand_in.rest_endpoint,
            "storage_endpoint": stand_in.storage_endpoint,
        }
        with BigQueryDestination(
            BigQuerySettings("test-project", "payments", prefix="eu_", **endpoints)
        ) as destination:
            destination.create_tables(load_schema(None))
            yield GoogleSql(stand_in, destination)
