"""Rows in the JSON of REST: {"f": [{"v": ...}]}, every scalar a string.

Source: https://cloud.google.com/bigquery/docs/reference/rest/v2/tabledata/list and
.../rest/v2/DataFormatOptions
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from tests.bigquery_stand_in.errors import invalid_query
from tests.bigquery_stand_in.fields import Field

_EPOCH = datetime(1970, 1, 1)


def encode_rows(
    rows: Sequence[Sequence[Any]], fields: list[Field], int64_timestamps: bool
) -> list[dict[str, Any]]:
    return [_record(row, fields, int64_timestamps) for row in rows]


def _record(values: Sequence[Any], fields: list[Field], int64_timestamps: bool) -> dict[str, Any]:
    return {
        "f": [
            {"v": _value(value, field, int64_timestamps)}
            for value, field in zip(values, fields, strict=True)
        ]
    }


def _value(value: Any, field: Field, int64_timestamps: bool) -> Any:
    if field["mode"] == "REPEATED":
        single = {**field, "mode": "NULLABLE"}
        return [{"v": _value(element, single, int64_timestamps)} for element in value or ()]
    if value is None:
        return None
    match field["type"]:
        case "RECORD":
            return _record(
                [value[child["name"]] for child in field["fields"]],
                field["fields"],
                int64_timestamps,
            )
        case "INTEGER":
            if not -(1 << 63) <= value < 1 << 63:
                raise invalid_query(f"int64 overflow: {value}")
            return str(value)
        case "FLOAT":
            return _float(value)
        case "BOOLEAN":
            return "true" if value else "false"
        case "NUMERIC":
            return _numeric(value)
        case "BYTES":
            return base64.b64encode(value).decode()
        case "TIMESTAMP":
            return _timestamp(value, int64_timestamps)
        case "DATE":
            return value.isoformat()
    return str(value)


def _float(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def _numeric(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _timestamp(value: datetime, as_int64: bool) -> str:
    if value.tzinfo is not None:
        value = value.astimezone(timezone.utc).replace(tzinfo=None)
    microseconds = (value - _EPOCH) // timedelta(microseconds=1)
    return str(microseconds) if as_int64 else f"{microseconds / 1e6:.6f}"
