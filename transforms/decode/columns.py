"""The fast path of the decoder for a field of one value: the type msgspec reads, and a column.

It accepts only what it surely reads as `record_rule.py` does. Every other value is left to that
rule: the decoder refuses it, or the mask beside the column marks it. RECORD and REPEATED are made
of these columns in record_columns.py.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence, Sized
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.decode.epochs import plain_epochs
from transforms.decode.timestamps import plain_dates, plain_timestamps
from transforms.model.schema import ARROW_TYPES, SchemaField
from transforms.model.tables import NUMERIC

NULL: Final = msgspec.Raw(b"null")

_FAST_TYPES: Final[dict[str, Any]] = {
    "STRING": str,
    "INT64": Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)],
    "FLOAT64": float,
    "BOOL": bool,
    "BYTES": bytes,
    "TIMESTAMP": str,
    "DATE": str,
}
_PLAIN_AMOUNT: Final = r'^"?-?[0-9]{1,20}(?:\.[0-9]{1,9})?"?$'
_PLAIN_NUMERIC: Final = r'^"?-?[0-9]{1,29}(?:\.[0-9]{1,9})?"?$'
"""Of JSON, in which no quote stands alone."""


def fast_type(field: SchemaField) -> Any:
    """What msgspec makes of one value of the field: msgspec.Raw if it only finds its end."""
    return msgspec.Raw if field.epoch_unit else _FAST_TYPES.get(field.type, msgspec.Raw)


def column_of(
    field: SchemaField, values: list[Any], amount: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """The column, and a mask of the rows that must be judged by the record rule.

    field: neither RECORD nor REPEATED. values: as `fast_type` has them, None or NULL for null.
    amount: whether this is the amount column, which has the stricter limit.
    """
    if field.type == "NUMERIC":
        return _numeric_column(field, values, amount)
    if field.type == "TIMESTAMP" and field.epoch_unit is not None:
        return plain_epochs(json_texts(values), field.epoch_unit, field.mode == "REQUIRED")
    if field.type == "TIMESTAMP":
        return plain_timestamps(pa.array(values, pa.string()))
    if field.type == "DATE":
        return plain_dates(pa.array(values, pa.string()))
    if field.type == "JSON":
        return _json_column(field, values)
    return pa.array(values, ARROW_TYPES[field.type]), np.zeros(len(values), dtype=bool)


def json_texts(values: list[msgspec.Raw]) -> pa.Array:
    """The JSON text of each value, whose UTF-8 must have been checked. Copied once."""
    offsets = pa.py_buffer(offsets_of(values))
    texts = pa.py_buffer(b"".join(values))
    # The cast raises if the texts are too long for offsets of 32 bits.
    return pa.LargeStringArray.from_buffers(len(values), offsets, texts).cast(pa.string())


def offsets_of(values: Sequence[Sized]) -> NDArray[np.int64]:
    """Where each value begins if all stand behind each other, and the end of the last."""
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    # array.array takes a list of integers faster than numpy does.
    np.cumsum(np.frombuffer(array("q", list(map(len, values))), np.int64), out=offsets[1:])
    return offsets


def _numeric_column(
    field: SchemaField, values: list[msgspec.Raw], amount: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Exact: only plain forms whose digits surely fit are cast, so Arrow has nothing to round."""
    texts = json_texts(values)
    plain = pc.match_substring_regex(texts, _PLAIN_AMOUNT if amount else _PLAIN_NUMERIC)
    understood = plain
    if plain.true_count < len(plain):
        if field.mode != "REQUIRED":
            understood = pc.or_(plain, pc.equal(texts, "null"))
        texts = pc.if_else(plain, texts, None)
    return pc.ascii_trim(texts, characters='"').cast(NUMERIC), ~np.asarray(understood)


def _json_column(
    field: SchemaField, values: list[msgspec.Raw]
) -> tuple[pa.Array, NDArray[np.bool_]]:
    texts = json_texts(values)
    is_null = pc.equal(texts, "null")
    refused = np.asarray(is_null) & (field.mode == "REQUIRED")
    return pc.if_else(is_null, None, texts), refused
