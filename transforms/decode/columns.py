"""The fast path of the decoder for a field of one value: the type msgspec reads, and a column.

It accepts only what it surely reads as `record_rule.py` does. Every other value is left to that
rule: the decoder refuses it, or the mask beside the column marks it. RECORD and REPEATED are made
of these columns in record_columns.py.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.decode.epochs import plain_epochs
from transforms.decode.timestamps import plain_dates, plain_timestamps
from transforms.model.coordinates import int64s
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
_PLAIN_AMOUNT: Final = (
    r'^(?:-?(?:0|[1-9][0-9]{0,19})(?:\.[0-9]{1,9})?|"-?[0-9]{1,20}(?:\.[0-9]{1,9})?")$'
)
_PLAIN_NUMERIC: Final = (
    r'^(?:-?(?:0|[1-9][0-9]{0,28})(?:\.[0-9]{1,9})?|"-?[0-9]{1,29}(?:\.[0-9]{1,9})?")$'
)
_PLAIN_INTEGER: Final = r"^-?(?:0|[1-9][0-9]{0,17})$"
_NO_NUMBER: Final = r"^-?0[0-9]"
"""A number of JSON has no zeros before its first digit."""

_OF_STRINGS: Final = frozenset({"STRING", "TIMESTAMP", "DATE", "NUMERIC"})
_OF_OTHERS: Final = frozenset({"NUMERIC", "INT64", "BOOL"})


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
        return _numeric_column(field, json_texts(values), amount)
    if field.type == "TIMESTAMP" and field.epoch_unit is not None:
        return plain_epochs(json_texts(values), field.epoch_unit, field.mode == "REQUIRED")
    if field.type == "TIMESTAMP":
        return plain_timestamps(pa.array(values, pa.string()))
    if field.type == "DATE":
        return plain_dates(pa.array(values, pa.string()))
    if field.type == "JSON":
        return _json_column(field, values)
    return pa.array(values, ARROW_TYPES[field.type]), np.zeros(len(values), dtype=bool)


def is_read_from_text(field: SchemaField, *, quoted: bool) -> bool:
    """Whether `column_of_texts` reads the field from JSON strings without a backslash (quoted), or
    from numbers, `true` and `false`.
    """
    if field.mode == "REPEATED":
        return False
    if field.epoch_unit is not None:
        return True
    return field.type in (_OF_STRINGS if quoted else _OF_OTHERS)


def reads_json_text(field: SchemaField) -> bool:
    """Whether `column_of_texts` takes the quotes of a string as part of its text."""
    return field.type == "NUMERIC" or field.epoch_unit is not None


def column_of_texts(
    field: SchemaField, texts: pa.Array, amount: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """As `column_of`, of texts without a backslash of which only the quotes are known to be JSON.

    texts: null where the message has no value; see `reads_json_text`.
    """
    if field.type == "NUMERIC":
        return _numeric_column(field, texts, amount)
    if field.epoch_unit is not None:
        times, refused = plain_epochs(texts, field.epoch_unit, field.mode == "REQUIRED")
        return times, refused | np.asarray(pc.match_substring_regex(texts, _NO_NUMBER))
    if field.type == "TIMESTAMP":
        return plain_timestamps(texts)
    if field.type == "DATE":
        return plain_dates(texts)
    if field.type == "INT64":
        plain = pc.match_substring_regex(texts, _PLAIN_INTEGER)
        return _where(plain, texts).cast(pa.int64()), _are_false(plain)
    if field.type == "BOOL":
        is_true = pc.equal(texts, "true")
        understood = pc.or_(is_true, pc.equal(texts, "false"))
        return is_true, _are_false(understood)
    assert field.type == "STRING"
    return texts, np.zeros(len(texts), dtype=bool)


def json_texts(values: list[msgspec.Raw]) -> pa.Array:
    """The JSON text of each value, whose UTF-8 must have been checked. Copied once."""
    offsets = pa.py_buffer(offsets_of(values))
    texts = pa.py_buffer(b"".join(values))
    # The cast raises if the texts are too long for offsets of 32 bits.
    return pa.LargeStringArray.from_buffers(len(values), offsets, texts).cast(pa.string())


def offsets_of(values: Sequence[Sized]) -> NDArray[np.int64]:
    """Where each value begins if all stand behind each other, and the end of the last."""
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(int64s(list(map(len, values))), out=offsets[1:])
    return offsets


def _numeric_column(
    field: SchemaField, texts: pa.Array, amount: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Exact: only plain forms whose digits surely fit are cast, so Arrow has nothing to round."""
    plain = pc.match_substring_regex(texts, _PLAIN_AMOUNT if amount else _PLAIN_NUMERIC)
    understood = plain
    if plain.true_count < len(plain):
        if field.mode != "REQUIRED":
            understood = pc.or_(plain, pc.equal(texts, "null"))
        texts = pc.if_else(plain, texts, None)
    return pc.ascii_trim(texts, characters='"').cast(NUMERIC), ~np.asarray(understood)


def _where(mask: pa.Array, values: pa.Array) -> pa.Array:
    return values if mask.true_count == len(mask) else pc.if_else(mask, values, None)


def _are_false(mask: pa.Array) -> NDArray[np.bool_]:
    """Without those that are null."""
    return np.asarray(pc.fill_null(pc.invert(mask), False))


def _json_column(
    field: SchemaField, values: list[msgspec.Raw]
) -> tuple[pa.Array, NDArray[np.bool_]]:
    texts = json_texts(values)
    is_null = pc.equal(texts, "null")
    refused = np.asarray(is_null) & (field.mode == "REQUIRED")
    return pc.if_else(is_null, None, texts), refused
