"""The fast path for RECORD and REPEATED: the type msgspec reads, and columns of its leaves.

The records of a slice are taken apart, field by field, to one list of values for each leaf of the
schema, of which columns.py makes a column; the values of a REPEATED field stand in one list, those
of one record behind those of the other. So each level of the schema costs a few C calls for a
slice, and no interpreted one for a record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import Any, Protocol

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.decode.columns import NULL, column_of, fast_type, offsets_of
from transforms.decode.unknown_columns import Names, UnknownMembers, array_texts, object_texts
from transforms.model.schema import SchemaField

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Column:
    """One field of the records of a slice, row by row.

    refused: rows that must be judged by the record rule. unknown: a column of texts, what the
    schema does not name within a RECORD, null where it names everything; None: that is so in every
    row. unordered: rows whose `unknown` must be made from the value.
    """

    values: pa.Array
    refused: Mask
    unknown: pa.Array | None
    unordered: Mask


@dataclass(frozen=True)
class Records:
    """All fields of the records of a slice: a column for each, the rest as in `Column`."""

    columns: list[pa.Array]
    refused: Mask
    unknown: pa.Array | None
    unordered: Mask


class FieldReader(Protocol):
    """One field of the schema. `default`: what a record without it has, msgspec.NODEFAULT if it is
    REQUIRED.
    """

    default: Any

    def json_type(self, strict: bool) -> Any:
        """What msgspec reads. strict: as in RecordReader."""

    def column(self, values: list[Any]) -> Column:
        """values: what the field is in each record."""


class RecordReader:
    """The fields of a message, or of a RECORD within it."""

    def __init__(
        self, fields: Sequence[SchemaField], names: Names, amount_column: str | None = None
    ) -> None:
        """names: of fields that the schema does not have and a strict type takes nevertheless.
        amount_column: None within a RECORD.
        """
        self._names = [field.name for field in fields]
        self._readers = [_reader(field, names, field.column == amount_column) for field in fields]
        self._unknown = UnknownMembers(names)
        self._values_of = [attrgetter(f"field_{index}") for index in range(len(fields))]

    def json_type(self, strict: bool) -> Any:
        """A struct. strict: an object with a member of unknown name is refused, else the member is
        passed over.
        """
        fields = [
            (
                f"field_{index}",
                reader.json_type(strict),
                msgspec.field(name=name, default=reader.default),
            )
            for index, (name, reader) in enumerate(zip(self._names, self._readers, strict=True))
        ]
        return msgspec.defstruct(
            "Record",
            [*fields, *self._unknown.struct_fields()],
            forbid_unknown_fields=strict,
            kw_only=True,
            gc=False,
        )

    def read(self, records: list[Any]) -> Records:
        """records: of a type that `json_type` has made."""
        found = [
            reader.column(list(map(values_of, records)))
            for reader, values_of in zip(self._readers, self._values_of, strict=True)
        ]
        members, unordered = self._unknown.texts(records)
        refused = np.zeros(len(records), dtype=bool)
        for column in found:
            refused |= column.refused
            unordered |= column.unordered
        within = [
            (name, column.unknown)
            for name, column in zip(self._names, found, strict=True)
            if column.unknown is not None
        ]
        unknown = object_texts(within + members)
        return Records([column.values for column in found], refused, unknown, unordered)


def _reader(field: SchemaField, names: Names, amount: bool) -> FieldReader:
    if field.mode == "REPEATED":
        return _Array(field, names)
    return _Object(field, names) if field.type == "RECORD" else _Value(field, amount)


class _Value:
    def __init__(self, field: SchemaField, amount: bool) -> None:
        self._field, self._amount = field, amount
        self._type = fast_type(field)
        if field.mode == "REQUIRED":
            self.default: Any = msgspec.NODEFAULT
        else:
            self.default = NULL if self._type is msgspec.Raw else None

    def json_type(self, strict: bool) -> Any:
        return self._type | None if self.default is None else self._type

    def column(self, values: list[Any]) -> Column:
        column, refused = column_of(self._field, values, self._amount)
        return Column(column, refused, None, _none(len(values)))


class _Object:
    """A RECORD that is not REPEATED."""

    def __init__(self, field: SchemaField, names: Names) -> None:
        self._records = RecordReader(field.fields, _within(field, names))
        self._fields = [child.arrow_field() for child in field.fields]
        self._required = field.mode == "REQUIRED"
        self.default: Any = msgspec.NODEFAULT if self._required else None

    def json_type(self, strict: bool) -> Any:
        kind = self._records.json_type(strict)
        return kind if self._required else kind | None

    def column(self, values: list[Any]) -> Column:
        present = values
        if not self._required:
            present = [value for value in values if value is not None]
        found = self._records.read(present)
        column = Column(
            pa.StructArray.from_arrays(found.columns, fields=self._fields),
            found.refused,
            found.unknown,
            found.unordered,
        )
        if len(present) == len(values):
            return column
        return _spread(column, np.array([value is not None for value in values]))


class _Array:
    """A REPEATED field. Missing and null are an empty array, a null within is refused."""

    default: Any = ()

    def __init__(self, field: SchemaField, names: Names) -> None:
        self._items = _reader(replace(field, mode="REQUIRED"), names, False)
        self._type = field.arrow_field().type

    def json_type(self, strict: bool) -> Any:
        # A tuple is one block of memory, a list two.
        items: Any = (self._items.json_type(strict), ...)
        return tuple[items] | None

    def column(self, values: list[Any]) -> Column:
        arrays = [value or () for value in values]
        starts = offsets_of(arrays)
        offsets = pa.array(starts, pa.int32())
        items = self._items.column(list(chain.from_iterable(arrays)))
        row_of_item = np.repeat(np.arange(len(arrays)), np.diff(starts))
        unknown = None
        if items.unknown is not None:
            found = np.asarray(items.unknown.is_valid())
            some = _rows_with(found, row_of_item, len(arrays))
            unknown = array_texts(items.unknown, offsets, some)
        return Column(
            pa.ListArray.from_arrays(offsets, items.values, type=self._type),
            _rows_with(items.refused, row_of_item, len(arrays)),
            unknown,
            _rows_with(items.unordered, row_of_item, len(arrays)),
        )


def _within(field: SchemaField, names: Names) -> Names:
    return frozenset(path[1:] for path in names if path[0] == field.name)


def _spread(column: Column, there: Mask) -> Column:
    """The column of the records that are there, with a null in the place of each other row."""
    null = len(column.refused)
    places = np.where(there, there.cumsum() - 1, null)
    return Column(
        _with_null(column.values).take(pa.array(places)),
        np.append(column.refused, False)[places],
        None if column.unknown is None else _with_null(column.unknown).take(pa.array(places)),
        np.append(column.unordered, False)[places],
    )


def _with_null(values: pa.Array) -> pa.Array:
    """With a null behind the last. Within a RECORD that is null, REQUIRED fields have a value."""
    return pa.concat_arrays([values, pa.array([None], values.type)])


def _rows_with(of_items: Mask, row_of_item: NDArray[np.int64], rows: int) -> Mask:
    """The rows of which at least one item is marked."""
    marked = _none(rows)
    marked[row_of_item[of_items]] = True
    return marked


def _none(rows: int) -> Mask:
    return np.zeros(rows, dtype=bool)
