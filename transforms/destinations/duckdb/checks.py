"""What `check` asks, in DuckDB's SQL."""

from __future__ import annotations

from typing import Final

from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.sql.checks import check_queries

DUCKDB_CHECKS: Final = check_queries(DUCKDB)
