"""Values of one column: which Arrow types a column takes, and which values are out of its range."""

from __future__ import annotations

import json
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tests.bigquery_stand_in.fields import Field

_TARGETS: Final = {
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "NUMERIC": pa.decimal128(38, 9),
    "BIGNUMERIC": pa.decimal128(38, 9),
    "TIMESTAMP": pa.timestamp("us"),
    "DATE": pa.date32(),
    "JSON": pa.string(),
}

_FIRST_MICROSECOND: Final = -62_135_596_800_000_000
_LAST_MICROSECOND: Final = 253_402_300_799_999_999
_FIRST_DAY: Final = -719_162
_LAST_DAY: Final = 2_932_896
"""0001-01-01 to 9999-12-31:
https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#timestamp_type
"""


def target_type(field: Field) -> pa.DataType:
    if field["type"] == "RECORD":
        kind = pa.struct([pa.field(child["name"], target_type(child)) for child in field["fields"]])
    else:
        kind = _TARGETS[field["type"]]
    return pa.list_(kind) if field["mode"] == "REPEATED" else kind


def mismatch(kind: pa.DataType, field: Field, path: str = "") -> str | None:
    """Why a column of the Arrow type cannot be written into the field; None if it can."""
    name = f"{path}{field['name']}"
    if field["mode"] == "REPEATED":
        if not pa.types.is_list(kind):
            return f"field {name} is REPEATED and takes a List, not {kind}"
        kind = kind.value_type
    if field["type"] == "RECORD":
        if not pa.types.is_struct(kind):
            return f"field {name} is a RECORD and takes a Struct, not {kind}"
        known = {child["name"].lower(): child for child in field["fields"]}
        for child in kind:
            if child.name.lower() not in known:
                return f"field {name} has no field {child.name}"
            if reason := mismatch(child.type, known[child.name.lower()], f"{name}."):
                return reason
        return None
    return (
        None
        if _accepts(field["type"], kind)
        else f"field {name} is {field['type']} and does not take the Arrow type {kind}"
    )


def _accepts(kind: str, arrow: pa.DataType) -> bool:
    match kind:
        case "INTEGER":
            return pa.types.is_integer(arrow)
        case "FLOAT":
            return pa.types.is_float32(arrow) or pa.types.is_float64(arrow)
        case "NUMERIC":
            return pa.types.is_decimal128(arrow) and arrow.scale <= 9
        case "BIGNUMERIC":
            return pa.types.is_decimal128(arrow) or pa.types.is_decimal256(arrow)
        case "TIMESTAMP":
            return bool(arrow == pa.timestamp("us", tz="UTC"))
        case "DATE":
            return arrow in (pa.date32(), pa.string(), pa.int32())
        case _:
            return bool(arrow == _TARGETS[kind])


def convert(column: pa.Array, field: Field) -> tuple[pa.Array, dict[int, str]]:
    """In the column's own type, and the values that are out of range: index -> reason."""
    target = _TARGETS[field["type"]]
    try:
        column.validate(full=True)
        result = column.cast(target)
    except pa.ArrowInvalid:
        return pa.nulls(len(column), target), _one_by_one(column, target)
    return result, _out_of_range(result, field)


def _one_by_one(column: pa.Array, target: pa.DataType) -> dict[int, str]:
    """Slow, and only for a batch that is refused: which values make the conversion fail."""
    found = {}
    for index in range(len(column)):
        single = pa.concat_arrays(
            [column.slice(index, 1)]
        )  # a copy: a slice would be validated with its neighbours
        try:
            single.validate(full=True)
            single.cast(target)
        except pa.ArrowInvalid as error:
            found[index] = f"invalid value: {error}"
    return found


def _out_of_range(column: pa.Array, field: Field) -> dict[int, str]:
    match field["type"]:
        case "TIMESTAMP":
            return _outside(column.cast(pa.int64()), _FIRST_MICROSECOND, _LAST_MICROSECOND)
        case "DATE":
            return _outside(column.cast(pa.int32()), _FIRST_DAY, _LAST_DAY)
        case "JSON":
            return {
                index: "invalid JSON"
                for index, text in enumerate(column.to_pylist())
                if text is not None and not _is_json(text)
            }
    return {}


def _outside(numbers: pa.Array, first: int, last: int) -> dict[int, str]:
    bad = pc.fill_null(pc.or_(pc.less(numbers, first), pc.greater(numbers, last)), False)
    return {
        int(index): "out of the range 0001-01-01 to 9999-12-31"
        for index in np.flatnonzero(bad.to_numpy(zero_copy_only=False))
    }


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
