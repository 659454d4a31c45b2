"""The views in DuckDB's SQL."""

from __future__ import annotations

from typing import Final

from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.sql.views import views

VIEWS: Final = {
    name: f"CREATE OR REPLACE VIEW {name} AS {sql}" for name, sql in views(DUCKDB).items()
}
"""Name -> the statement that creates it."""
