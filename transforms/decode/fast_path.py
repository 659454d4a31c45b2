"""The fast path of the decoder: whole columns of a slice, and no rule that is asked value by value.

Values that are laid out as those before them are not decoded at all (layout.py). Each of the others
takes one C call. It is decoded by a strict type first, which has the fields of the schema and the
names that were learned. What that one refuses is decoded by a type that passes over members of
unknown name; their text is then made value by value. What is refused again is left to the record
rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.decode.layout import is_utf8
from transforms.decode.layout_reader import LayoutReader
from transforms.decode.learned_names import LearnedNames
from transforms.decode.record_columns import Mask, RecordReader, Records
from transforms.decode.record_rule import VALIDATE
from transforms.decode.unknown_columns import Names
from transforms.decode.unknown_fields import UnknownFinder, to_json
from transforms.model.schema import DEDUP_COLUMN, PaymentSchema

_DEEP: Final = 400
"""Levels of a value that the record rule judges: how deep is too deep for it depends on Python's
limit of recursion, 1,000 with all calls on the way, and must be decided in one place.
"""

_SHORT: Final = 500
"""Bytes of a value that is neither _DEEP nor has a number of more than 4,300 digits, Python's limit
for an integer, which the record rule has too:
https://docs.python.org/3/library/stdtypes.html#int-max-str-digits. msgspec.Raw knows neither limit.
"""
_LONG: Final = 4_000

_DEPTH: Final = np.zeros(256, dtype=np.int8)
_DEPTH[list(b"[{")] = 1
_DEPTH[list(b"]}")] = -1


@dataclass(frozen=True)
class Slice:
    """The columns of the values that the fast path has taken, in order.

    taken: a mask of these over all values of the slice.
    """

    columns: list[pa.Array]
    unknown: pa.Array
    taken: Mask


@dataclass(frozen=True)
class _Types:
    """Two decoders for one set of names, and what makes columns of their structs."""

    strict: Callable[[bytes], Any]
    pass_over: Callable[[bytes], Any]
    reader: RecordReader


class FastPath:
    """Not picklable; for one process. What it has learned from values changes no answer."""

    def __init__(self, schema: PaymentSchema, keep_unknown: bool, max_record_bytes: int) -> None:
        """keep_unknown: else a value with a field outside of the schema is not taken."""
        self._schema = schema
        self._keep_unknown = keep_unknown
        self._max_record_bytes = max_record_bytes
        self._key = [field.column for field in schema.fields].index(DEDUP_COLUMN)
        self._finder = UnknownFinder(schema.fields)
        self._learned = LearnedNames(self._finder)
        self._made: tuple[Names, _Types] | None = None
        self._layouts = LayoutReader(schema.fields, schema.amount_column, max_record_bytes)

    def decode(self, values: Sequence[bytes | None]) -> Slice:
        """The values that surely are payments, as the record rule would have them."""
        laid_out = self._layouts.read(values)
        if laid_out is None:
            return self._one_by_one(values)
        fast = Slice(
            laid_out.columns, pa.nulls(len(laid_out.columns[0]), pa.string()), laid_out.taken
        )
        others = np.flatnonzero(~fast.taken)
        if not len(others):
            return fast
        rest = self._one_by_one([values[row] for row in others.tolist()])
        return _together(fast, rest, others)

    def _one_by_one(self, values: Sequence[bytes | None]) -> Slice:
        checked = self._checked(values)
        types, records, refused = self._structs(checked)
        taken = np.ones(len(values), dtype=bool)
        if refused.any():
            taken[:] = [record is not None for record in records]
            records = [record for record in records if record is not None]
        found = types.reader.read(records)
        kept = ~found.refused & np.asarray(pc.not_equal(found.columns[self._key], ""))
        by_value = (found.unordered | refused[taken]) & kept
        unknown = self._unknown(
            found, by_value, [checked[row] for row in np.flatnonzero(taken)[by_value]]
        )
        self._learned.decoded(len(values), unknown.null_count < len(unknown))
        self._layouts.learn(checked, np.flatnonzero(taken)[kept & ~refused[taken]])
        columns = found.columns
        if not kept.all():
            *columns, unknown = (column.filter(pa.array(kept)) for column in [*columns, unknown])
            taken[taken] = kept
        return Slice(columns, unknown, taken)

    def _structs(self, values: list[bytes]) -> tuple[_Types, list[Any], Mask]:
        """A struct for each value, None where none could be made, and a mask of those that the
        strict type refuses: a struct of these has not all members of the value.
        """
        types = self._types()
        records, rows = _decode_each(types.strict, values)
        if rows and self._keep_unknown:
            if self._learned.learn([values[row] for row in rows]):
                types = self._types()
                records, rows = _decode_each(types.strict, values)
            again, _ = _decode_each(types.pass_over, [values[row] for row in rows])
            for row, record in zip(rows, again, strict=True):
                records[row] = record
        refused = np.zeros(len(values), dtype=bool)
        refused[rows] = True
        return types, records, refused

    def _unknown(self, found: Records, by_value: Mask, values: list[bytes]) -> pa.Array:
        """The column unknown_fields, some rows of which are made of their values."""
        unknown = found.unknown
        if unknown is None:
            unknown = pa.nulls(len(by_value), pa.string())
        if not values:
            return unknown
        texts = pa.array([to_json(self._finder.find(value)) for value in values], pa.string())
        return pc.replace_with_mask(unknown, pa.array(by_value), texts)

    def _types(self) -> _Types:
        names = self._learned.names
        if self._made is None or self._made[0] != names:
            reader = RecordReader(self._schema.fields, names, self._schema.amount_column)
            strict = msgspec.json.Decoder(reader.json_type(strict=True)).decode
            pass_over = msgspec.json.Decoder(reader.json_type(strict=False)).decode
            self._made = (names, _Types(strict, pass_over, reader))
        return self._made[1]

    def _checked(self, values: Sequence[bytes | None]) -> list[bytes]:
        """The values, with no bytes in the place of each that is left to the record rule."""
        limit = self._max_record_bytes
        checked = [value or b"" for value in values]
        longest = max(map(len, checked), default=0)
        if longest > limit:
            checked = [value if len(value) <= limit else b"" for value in checked]
        if not all(map(bytes.isascii, checked)):
            # msgspec does not check the UTF-8 of a Raw, nor of a value that a later one of the same
            # key replaces.
            checked = [value if is_utf8(value) else b"" for value in checked]
        if longest > _SHORT:
            checked = [
                value if len(value) <= _SHORT or _is_within_limits(value) else b""
                for value in checked
            ]
        return checked


def _decode_each(
    decode: Callable[[bytes], Any], values: list[bytes]
) -> tuple[list[Any], list[int]]:
    """A struct for each value, None where it is refused, and the places of these."""
    records: list[Any] = []
    refused: list[int] = []
    remaining = iter(values)
    while True:
        try:
            # On an error `extend` keeps what came before it, and the iterator goes on after the
            # refused value.
            records.extend(map(decode, remaining))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            refused.append(len(records))
            records.append(None)
        else:
            return records, refused


def _together(some: Slice, of_others: Slice, others: NDArray[np.int64]) -> Slice:
    """others: the rows of the slice of which `of_others` was made."""
    taken = some.taken.copy()
    taken[others[of_others.taken]] = True
    if not of_others.taken.any():
        return some
    order = np.argsort(
        np.concatenate([np.flatnonzero(some.taken), others[of_others.taken]]), kind="stable"
    )
    *columns, unknown = (
        pa.concat_arrays(parts).take(pa.array(order))
        for parts in zip(
            [*some.columns, some.unknown], [*of_others.columns, of_others.unknown], strict=True
        )
    )
    return Slice(columns, unknown, taken)


def _is_within_limits(value: bytes) -> bool:
    """Whether neither of the limits of _DEEP and _SHORT stands against the value."""
    if value.count(b"[") + value.count(b"{") > _DEEP and _depth(value) > _DEEP:
        return False
    return len(value) <= _LONG or _is_json(value)


def _depth(value: bytes) -> int:
    """Levels of objects and arrays, if the value is JSON."""
    without_escapes = value.replace(b"\\\\", b"").replace(b'\\"', b"")
    without_strings = b"".join(without_escapes.split(b'"')[::2])
    steps = _DEPTH[np.frombuffer(without_strings, dtype=np.uint8)]
    return int(steps.cumsum(dtype=np.int64).max(initial=0))


def _is_json(value: bytes) -> bool:
    try:
        VALIDATE.decode(value)
    except (ValueError, RecursionError):
        return False
    return True
