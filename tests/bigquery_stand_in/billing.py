"""How many bytes a query reads: the logical size of the columns that it names, over the partitions
that it reads of the tables that it names (sql/pruning.py).

UPDATE, DELETE and MERGE read all columns of the table that they change besides. Pruning by cluster
is not modelled. Source: https://cloud.google.com/bigquery/docs/estimate-costs#estimate_query_costs,
https://cloud.google.com/bigquery/pricing, limits.COSTS
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.errors import RestFailure
from tests.bigquery_stand_in.fields import Field
from tests.bigquery_stand_in.sql.pruning import Scan
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
    cursor: duckdb.DuckDBPyConnection,
    scans: Sequence[Scan],
    columns: frozenset[str] | None,
    values: Mapping[str, Any],
) -> int:
    """values: of the statement's parameters, by name."""
    tables = {id(scan.table): scan.table for scan in scans}
    return sum(
        _scanned(cursor, table, [scan for scan in scans if scan.table is table], columns, values)
        for table in tables.values()
    )


def _scanned(
    cursor: duckdb.DuckDBPyConnection,
    table: Table,
    scans: Sequence[Scan],
    columns: frozenset[str] | None,
    values: Mapping[str, Any],
) -> int:
    if any(scan.partitions is None for scan in scans):
        return table_bytes(cursor, table, columns)
    which = " OR ".join(f"({scan.partitions})" for scan in scans)
    used = frozenset().union(*(scan.parameters for scan in scans))
    sizes = _sizes(table, columns)
    found = cursor.execute(
        f"SELECT COALESCE(SUM({sizes}), 0) FROM {table.sql_name} WHERE {which}",
        {name: values[name] for name in used},
    ).fetchall()
    return int(found[0][0])


def _sizes(table: Table, columns: frozenset[str] | None) -> str:
    fields = [
        field for field in table.fields if columns is None or field["name"].lower() in columns
    ]
    return " + ".join(_size(field) for field in fields) or "0"


def table_bytes(
    cursor: duckdb.DuckDBPyConnection, table: Table, columns: frozenset[str] | None = None
) -> int:
    """Of all its partitions. Remembered until the table changes."""
    fields = [
        field for field in table.fields if columns is None or field["name"].lower() in columns
    ]
    key = (table.version, table.schema_version, tuple(field["name"] for field in fields))
    if key not in table.sizes:
        sizes = _sizes(table, columns)
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
