"""Query parameters of BigQuery: values by name, and rows as an array of structs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

import pyarrow as pa
from google.cloud.bigquery import (
    ArrayQueryParameter,
    ScalarQueryParameter,
    ScalarQueryParameterType,
    StructQueryParameter,
    StructQueryParameterType,
)

Parameter: TypeAlias = Any
"""google.cloud.bigquery's ScalarQueryParameter, ArrayQueryParameter or StructQueryParameter."""

_TYPES: Final[dict[type, str]] = {
    bool: "BOOL",
    int: "INT64",
    float: "FLOAT64",
    str: "STRING",
    bytes: "BYTES",
    Decimal: "NUMERIC",
    datetime: "TIMESTAMP",
    date: "DATE",
}
_ARROW_TYPES: Final = {pa.string(): "STRING", pa.int32(): "INT64", pa.int64(): "INT64"}


def parameter(name: str, value: Any) -> Parameter:
    """A parameter of the value's type; a list is an array, None and [] are STRING."""
    if isinstance(value, (list, tuple)):
        return ArrayQueryParameter(name, _TYPES[type(value[0])] if value else "STRING", list(value))
    return ScalarQueryParameter(name, "STRING" if value is None else _TYPES[type(value)], value)


def array_of_structs(
    name: str, kinds: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> Parameter:
    """A parameter for UNNEST. kinds: type by field, which an array of no rows has too.

    A request may have 10 MB (https://cloud.google.com/bigquery/quotas#query_jobs).
    """
    structs = [
        StructQueryParameter(
            None, *(ScalarQueryParameter(key, kind, row[key]) for key, kind in kinds.items())
        )
        for row in rows
    ]
    kind = StructQueryParameterType(
        *(ScalarQueryParameterType(kind, name=key) for key, kind in kinds.items())
    )
    return ArrayQueryParameter(name, kind, structs)


def array_of_rows(name: str, rows: pa.Table) -> Parameter:
    """A parameter for UNNEST. rows: columns of strings and integers."""
    kinds = {field.name: _ARROW_TYPES[field.type] for field in rows.schema}
    return array_of_structs(name, kinds, rows.to_pylist())
