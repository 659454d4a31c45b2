"""Which query columns go into which table columns: by position, and only with BigQuery's implicit
conversions.

DuckDB would convert nearly anything, so that a statement with its columns in another order would
pass here and fail in production. Source:
https://cloud.google.com/bigquery/docs/reference/standard-sql/conversion_rules
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from tests.bigquery_stand_in.errors import invalid_query
from tests.bigquery_stand_in.fields import Field, from_duckdb

_COERCIBLE: Final = {
    "NUMERIC": {
        "INTEGER",
        "FLOAT",
    },  # FLOAT: a literal, whose type DuckDB does not tell from a column's
    "BIGNUMERIC": {"INTEGER", "NUMERIC", "FLOAT"},
    "FLOAT": {"INTEGER", "NUMERIC", "BIGNUMERIC"},
    "TIMESTAMP": {"STRING"},  # literals, as above
    "DATE": {"STRING"},
}


def check_columns(columns: Sequence[tuple[Any, ...]], targets: Sequence[Field]) -> None:
    """columns: description of DuckDB's result. Raises RestFailure (invalidQuery)."""
    if len(columns) != len(targets):
        raise invalid_query(
            f"The query has {len(columns)} columns, but {len(targets)} are to be written"
        )
    for (name, kind, *_), target in zip(columns, targets, strict=True):
        if _is_null(kind):
            continue
        given = from_duckdb(name, kind)
        repeated = (given["mode"] == "REPEATED", target["mode"] == "REPEATED")
        if repeated[0] != repeated[1] or not (
            given["type"] == target["type"] or given["type"] in _COERCIBLE.get(target["type"], ())
        ):
            raise invalid_query(
                f"Query column {name} has type {_name(given)} which cannot be inserted into column"
                f" {target['name']}, which has type {_name(target)}"
            )


def _is_null(kind: Any) -> bool:
    """A NULL, or an empty array, without a type of its own fits everywhere."""
    return "null" in str(kind).lower()


def _name(field: Field) -> str:
    return f"ARRAY<{field['type']}>" if field["mode"] == "REPEATED" else str(field["type"])
