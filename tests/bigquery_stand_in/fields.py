"""Column types, three ways: BigQuery's field resource (REST), DuckDB's type, and the
TableFieldSchema of the Write API.
"""

from __future__ import annotations

from typing import Any, Final

from google.cloud.bigquery_storage_v1 import types

from tests.bigquery_stand_in.errors import invalid

Field = dict[str, Any]
"""A TableFieldSchema of https://cloud.google.com/bigquery/docs/reference/rest/v2/tables: name,
type, mode, fields, description.
"""

_ALIASES: Final = {
    "INT64": "INTEGER",
    "FLOAT64": "FLOAT",
    "BOOL": "BOOLEAN",
    "STRUCT": "RECORD",
    "DECIMAL": "NUMERIC",
}

_DUCKDB: Final = {
    "STRING": "VARCHAR",
    "BYTES": "BLOB",
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "BOOLEAN": "BOOLEAN",
    "NUMERIC": "DECIMAL(38,9)",
    "BIGNUMERIC": "DECIMAL(38,9)",
    "TIMESTAMP": "TIMESTAMP",
    "DATE": "DATE",
    "JSON": "JSON",
}

_FROM_DUCKDB: Final = {
    "varchar": "STRING",
    "blob": "BYTES",
    "tinyint": "INTEGER",
    "smallint": "INTEGER",
    "integer": "INTEGER",
    "bigint": "INTEGER",
    "hugeint": "INTEGER",
    "utinyint": "INTEGER",
    "usmallint": "INTEGER",
    "uinteger": "INTEGER",
    "ubigint": "INTEGER",
    "uhugeint": "INTEGER",
    "float": "FLOAT",
    "double": "FLOAT",
    "boolean": "BOOLEAN",
    "decimal": "NUMERIC",
    "timestamp": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMP",
    "date": "DATE",
    "json": "JSON",
    "null": "INTEGER",
    '"null"': "INTEGER",
}

_STORAGE: Final = {"FLOAT": "DOUBLE", "INTEGER": "INT64", "BOOLEAN": "BOOL", "RECORD": "STRUCT"}

_TABLE_FIELD = types.TableFieldSchema.pb()
_TABLE_SCHEMA = types.TableSchema.pb()


def canonical(field: Field) -> Field:
    """With the type names that the service answers (INTEGER, not INT64) and a mode. Raises
    RestFailure for a type that is not known.
    """
    kind = field["type"].upper()
    kind = _ALIASES.get(kind, kind)
    result = {**field, "type": kind, "mode": field.get("mode", "NULLABLE").upper()}
    if kind == "RECORD":
        result["fields"] = [canonical(child) for child in field["fields"]]
    elif kind not in _DUCKDB:
        raise invalid(f"Invalid value for type: {field['type']} is not a valid value")
    return result


def duckdb_type(field: Field) -> str:
    if field["type"] == "RECORD":
        kind = (
            "STRUCT("
            + ", ".join(f'"{child["name"]}" {duckdb_type(child)}' for child in field["fields"])
            + ")"
        )
    else:
        kind = _DUCKDB[field["type"]]
    return kind + "[]" if field["mode"] == "REPEATED" else kind


def duckdb_column(field: Field) -> str:
    """A column definition; REQUIRED is enforced by DuckDB for DML."""
    return f'"{field["name"]}" {duckdb_type(field)}' + (
        " NOT NULL" if field["mode"] == "REQUIRED" else ""
    )


def from_duckdb(name: str, kind: Any) -> Field:
    """The field of a result column, never REQUIRED, as in BigQuery. kind: DuckDBPyType."""
    mode = "NULLABLE"
    if kind.id in ("list", "array"):
        mode, kind = "REPEATED", kind.children[0][1]
    if kind.id == "struct":
        return {
            "name": name,
            "type": "RECORD",
            "mode": mode,
            "fields": [from_duckdb(child, of) for child, of in kind.children],
        }
    known = _FROM_DUCKDB.get(str(kind).lower()) or _FROM_DUCKDB.get(kind.id)
    if known is None:
        raise invalid(f"the stand-in has no BigQuery type for {kind} (column {name})")
    return {"name": name, "type": known, "mode": mode}


def storage_schema(fields: list[Field]) -> Any:
    """The TableSchema that CreateWriteStream answers and that `updated_schema` carries."""
    return _TABLE_SCHEMA(fields=[_storage_field(field) for field in fields])


def _storage_field(field: Field) -> Any:
    kind = types.TableFieldSchema.Type[_STORAGE.get(field["type"], field["type"])]
    mode = types.TableFieldSchema.Mode[field["mode"]]
    nested = [_storage_field(child) for child in field.get("fields", ())]
    return _TABLE_FIELD(
        name=field["name"],
        type_=int(kind),
        mode=int(mode),
        fields=nested,
        description=field.get("description", ""),
    )
