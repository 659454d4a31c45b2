"""How many bytes a query reads: the logical size of the columns that it names, over the tables that
it names.

Pruning by partition or cluster is not modelled: a filter on the partition column reads as much as
none. Source: https://cloud.google.com/bigquery/docs/estimate-costs#estimate_query_costs,
limits.COSTS
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import duckdb

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.errors import RestFailure
from tests.bigquery_stand_in.fields import Field
from tests.bigquery_stand_in.warehouse import Table

_FIXED: Final = {
    "INTEGER": 8,
    "FLOAT": 8,
    "BOOLEAN": 1,
    "NUMERIC": 16,
    "BIGNUMERIC": 32,
    "TIMESTAMP": 8,
    "DATE": 8,
}


def bytes_read(
    cursor: duckdb.DuckDBPyConnection, tables: Iterable[Table], columns: frozenset[str] | None
) -> int:
    return sum(
        table_bytes(cursor, table, columns)
        for table in {id(table): table for table in tables}.values()
    )


def table_bytes(
    cursor: duckdb.DuckDBPyConnection, table: Table, columns: frozenset[str] | None = None
) -> int:
    """Remembered until the table changes."""
    fields = [
        field for field in table.fields if columns is None or field["name"].lower() in columns
    ]
    key = (table.version, table.schema_version, tuple(field["name"] for field in fields))
    if key not in table.sizes:
        sizes = " + ".join(_size(field) for field in fields) or "0"
        found = cursor.execute(f"SELECT COALESCE(SUM({sizes}), 0) FROM {table.sql_name}").fetchall()
        table.sizes.clear()
        table.sizes[key] = int(found[0][0])
    return table.sizes[key]


def check_bytes_billed(bytes_processed: int, tables: int, maximum: int | None) -> int:
    """Bytes billed. Raises RestFailure (bytesBilledLimitExceeded) when the job's maximumBytesBilled
    is lower.
    """
    if not tables:
        return 0
    units = -(-bytes_processed // limits.BYTES_BILLED_UNIT) * limits.BYTES_BILLED_UNIT
    billed = max(units, tables * limits.MIN_BYTES_BILLED_PER_TABLE)
    if maximum is not None and billed > maximum:
        raise RestFailure(
            400,
            "bytesBilledLimitExceeded",
            f"Query exceeded limit for bytes billed: {maximum}. {billed} or higher required.",
        )
    return billed


def _size(field: Field) -> str:
    column = f'"{field["name"]}"'
    if field["mode"] == "REPEATED" or field["type"] in ("RECORD", "JSON"):
        return f"COALESCE(strlen(to_json({column})::VARCHAR), 0)"
    if field["type"] in _FIXED:
        return f"CASE WHEN {column} IS NULL THEN 0 ELSE {_FIXED[field['type']]} END"
    length = "octet_length" if field["type"] == "BYTES" else "strlen"
    return f"COALESCE(2 + {length}({column}), 0)"
