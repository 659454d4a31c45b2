"""Query parameters: from REST's JSON to values of DuckDB with their type.

Source: https://cloud.google.com/bigquery/docs/reference/rest/v2/QueryParameter
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Final

from tests.bigquery_stand_in.errors import invalid
from tests.bigquery_stand_in.fields import Field, canonical, duckdb_type
from tests.bigquery_stand_in.limits import MAX_PARAMETERS


@dataclass(frozen=True)
class Parameter:
    """field: its type, in the form of a column; value: what DuckDB gets."""

    name: str
    field: Field
    value: Any

    @property
    def sql_type(self) -> str:
        return duckdb_type(self.field)


def read_parameters(resources: list[dict[str, Any]]) -> list[Parameter]:
    """Positional ones get the names that `named_positional_parameters` gives to their marks. Raises
    RestFailure.
    """
    if len(resources) > MAX_PARAMETERS:
        raise invalid(
            f"Too many query parameters: {len(resources)}, at most {MAX_PARAMETERS} are allowed"
        )
    found = []
    for position, resource in enumerate(resources):
        name = resource.get("name") or f"_{position}"
        field = _field(name, resource["parameterType"])
        try:
            value = _value(field, resource.get("parameterValue") or {})
        except (ValueError, KeyError, InvalidOperation) as error:
            raise invalid(f"Invalid value for query parameter {name}: {error}") from error
        found.append(Parameter(name, field, value))
    return found


def _field(name: str, kind: dict[str, Any]) -> Field:
    if kind["type"] == "ARRAY":
        return {**_field(name, kind["arrayType"]), "mode": "REPEATED"}
    if kind["type"] == "STRUCT":
        return {
            "name": name,
            "type": "RECORD",
            "mode": "NULLABLE",
            "fields": [_field(of["name"], of["type"]) for of in kind["structTypes"]],
        }
    return canonical({"name": name, "type": kind["type"]})


def _value(field: Field, resource: dict[str, Any]) -> Any:
    if field["mode"] == "REPEATED":
        single = {**field, "mode": "NULLABLE"}
        return [_value(single, element) for element in resource.get("arrayValues") or []]
    if field["type"] == "RECORD":
        values = resource.get("structValues")
        return (
            None
            if values is None
            else {of["name"]: _value(of, values.get(of["name"]) or {}) for of in field["fields"]}
        )
    text = resource.get("value")
    return None if text is None else _CONVERTERS[field["type"]](str(text))


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is not a BOOL")
    return text.lower() == "true"


def _int64(text: str) -> int:
    value = int(text)
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{text} is not an INT64")
    return value


_EXACT = Context(prec=100)


def _numeric(text: str) -> Decimal:
    value = Decimal(text)
    if (
        not value.is_finite()
        or abs(value) >= Decimal(10) ** 29
        or value.normalize(_EXACT).as_tuple().exponent < -9
    ):
        raise ValueError(f"{text} is not a NUMERIC")
    return value


def _timestamp(text: str) -> datetime:
    moment = datetime.fromisoformat(text.replace(" UTC", "+00:00"))
    return moment.astimezone(timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment


_CONVERTERS: Final[dict[str, Callable[[str], Any]]] = {
    "STRING": str,
    "BYTES": lambda text: base64.b64decode(text, validate=True),
    "INTEGER": _int64,
    "FLOAT": float,
    "BOOLEAN": _boolean,
    "NUMERIC": _numeric,
    "BIGNUMERIC": Decimal,
    "TIMESTAMP": _timestamp,
    "DATE": date.fromisoformat,
    "JSON": str,
}
