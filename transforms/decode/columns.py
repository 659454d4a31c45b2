"""The fast path of the decoder, field by field: the type msgspec reads, and a column of the values.

It accepts only what it surely reads as `record_rule.py` does. Every other value is left to that
rule: the decoder refuses it, or the mask beside the column marks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.decode.epochs import plain_epochs
from transforms.decode.json_values import read_field
from transforms.decode.record_rule import VALIDATE
from transforms.decode.rejection import Rejected
from transforms.decode.timestamps import plain_timestamps
from transforms.decode.unknown_fields import UnknownFields
from transforms.model.schema import DEDUP_COLUMN, SchemaField
from transforms.model.tables import NUMERIC

_NULL: Final = msgspec.Raw(b"null")
_FAST_TYPES: Final[dict[str, Any]] = {
    "STRING": str,
    "INT64": Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
    "FLOAT64": float,
    "BOOL": bool,
    "BYTES": bytes,
    "TIMESTAMP": str,
}
_PLAIN_AMOUNT: Final = r'^(-?[0-9]{1,20}(\.[0-9]{1,9})?|"-?[0-9]{1,20}(\.[0-9]{1,9})?")$'
_PLAIN_NUMERIC: Final = r'^(-?[0-9]{1,29}(\.[0-9]{1,9})?|"-?[0-9]{1,29}(\.[0-9]{1,9})?")$'


def struct_decoder(fields: Sequence[SchemaField]) -> Callable[[bytes], Any]:
    """Decodes one value to a struct with an attribute per field.

    The decoder raises msgspec.DecodeError, UnicodeDecodeError or RecursionError for a value that
    the fast path does not take.
    """
    required = [(field.name, _fast_type(field)) for field in fields if field.mode == "REQUIRED"]
    optional = [(field.name, *_optional(field)) for field in fields if field.mode != "REQUIRED"]
    struct = msgspec.defstruct(
        "Payment", [*required, *optional], forbid_unknown_fields=True, gc=False
    )
    return msgspec.json.Decoder(struct).decode


def column_of(
    field: SchemaField, values: list[Any], amount: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """The column, and a mask of the rows that must be judged by the record rule.

    amount: whether this is the amount column, which has the stricter limit.
    """
    if field.type == "NUMERIC" and field.mode != "REPEATED":
        return _numeric_column(field, values, amount)
    if field.type == "TIMESTAMP" and field.mode != "REPEATED":
        if field.epoch_unit is not None:
            return plain_epochs(_texts(values), field.epoch_unit, field.mode == "REQUIRED")
        return plain_timestamps(pa.array(values, pa.string()))
    if _is_raw(field):
        return _nested_column(field, values)
    return pa.array(values, field.arrow_field().type), _none_refused(len(values))


def _is_raw(field: SchemaField) -> bool:
    return field.mode == "REPEATED" or field.type not in _FAST_TYPES or field.epoch_unit is not None


def _fast_type(field: SchemaField) -> Any:
    if field.column == DEDUP_COLUMN:
        return Annotated[str, msgspec.Meta(min_length=1)]
    return msgspec.Raw if _is_raw(field) else _FAST_TYPES[field.type]


def _optional(field: SchemaField) -> tuple[Any, Any]:
    return (msgspec.Raw, _NULL) if _is_raw(field) else (_FAST_TYPES[field.type] | None, None)


def _texts(values: list[msgspec.Raw]) -> pa.Array:
    """The JSON text of each value."""
    return pa.array(list(map(bytes, values)), pa.binary()).cast(pa.string())


def _numeric_column(
    field: SchemaField, values: list[msgspec.Raw], amount: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Exact: only plain forms whose digits surely fit are cast, so Arrow has nothing to round."""
    texts = _texts(values)
    is_null = pc.equal(texts, "null")
    plain = pc.match_substring_regex(texts, _PLAIN_AMOUNT if amount else _PLAIN_NUMERIC)
    numbers = pc.utf8_trim(pc.if_else(plain, texts, None), characters='"').cast(NUMERIC)
    understood = plain if field.mode == "REQUIRED" else pc.or_(plain, is_null)
    return numbers, ~np.asarray(understood)


def _nested_column(
    field: SchemaField, values: list[msgspec.Raw]
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """DATE, JSON, RECORD and REPEATED: one call of the slow rule per value."""
    refused = _none_refused(len(values))
    converted: list[Any] = []
    for row, value in enumerate(values):
        unknown: UnknownFields = {}
        try:
            VALIDATE.decode(value)
            converted.append(read_field(field, bytes(value), field.name, False, unknown))
        except (Rejected, ValueError, RecursionError):
            converted.append(None)
            refused[row] = True
        refused[row] |= bool(unknown)
    return pa.array(converted, field.arrow_field().type), refused


def _none_refused(rows: int) -> NDArray[np.bool_]:
    return np.zeros(rows, dtype=bool)
