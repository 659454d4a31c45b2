"""Columns of the messages that have one of the layouts that recent messages had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.decode.columns import column_of_texts, reads_json_text
from transforms.decode.layout import Found, Layout, Page, layout_of
from transforms.model.coordinates import int64s
from transforms.model.schema import DEDUP_COLUMN, SchemaField

_LEAST: Final = 256
"""Messages of a slice for which comparing with layouts costs less than reading them one by one."""

_LARGEST: Final = 16 << 20
"""Bytes of a slice: it is copied once."""

_MOST: Final = 8
"""Layouts at one time: those of the producers of some topics."""

_SAMPLE: Final = 16
"""Messages of a slice of which a layout is made."""

_LONGEST_PAUSE: Final = 64
"""Slices."""


@dataclass(frozen=True)
class LaidOut:
    """taken: a mask over all messages of the slice. columns: of these, in order."""

    columns: list[pa.Array]
    taken: NDArray[np.bool_]


class LayoutReader:
    """What it has learned decides about speed and nothing else."""

    def __init__(
        self, fields: Sequence[SchemaField], amount_column: str | None, max_record_bytes: int
    ) -> None:
        self._fields = fields
        self._amount_column = amount_column
        self._json = np.array([[reads_json_text(field)] for field in fields])
        self._max_record_bytes = max_record_bytes
        self._layouts: list[Layout] = []
        self._pause = self._paused = 0

    def read(self, values: Sequence[bytes | None]) -> LaidOut | None:
        """The messages that surely are payments; None: they are to be read one by one."""
        if self._paused:
            self._paused -= 1
            return None
        if not self._layouts or len(values) < _LEAST:
            return None
        messages = [value or b"" for value in values]
        lengths = int64s(list(map(len, messages)))
        if lengths.sum() > _LARGEST:
            return None
        read = self._read(Page(messages, lengths, self._max_record_bytes))
        if 2 * np.count_nonzero(read.taken) < len(values):
            self._pause = self._paused = min(2 * self._pause + 1, _LONGEST_PAUSE)
        else:
            self._pause = 0
        return read

    def learn(self, values: Sequence[bytes], rows: NDArray[np.int64]) -> None:
        """rows: of the values that were read one by one, payments without an unknown field."""
        if self._paused or len(values) < _LEAST or len(rows) < _LEAST // 4:
            return
        # An odd step, since producers may take turns.
        sample = [layout_of(values[row], self._fields) for row in rows[:: len(rows) // _SAMPLE | 1]]
        often = Counter(layout for layout in sample if layout is not None).most_common(_MOST)
        new = [layout for layout, _ in often if layout not in self._layouts]
        self._layouts = [*new, *self._layouts][:_MOST]

    def _read(self, page: Page) -> LaidOut:
        taken = np.zeros(len(page.ends), dtype=bool)
        found: list[tuple[Layout, Found]] = []
        for layout in self._layouts:
            rows = np.flatnonzero(page.sound & ~taken)
            some = layout.find(page, rows)
            if len(some.rows):
                taken[some.rows] = True
                found.append((layout, some))
        # Those that are not in use come last, and are forgotten first.
        in_use = [layout for layout, _ in found]
        self._layouts = [*in_use, *(each for each in self._layouts if each not in in_use)]
        return self._columns(page, taken, found)

    def _columns(
        self, page: Page, taken: NDArray[np.bool_], found: list[tuple[Layout, Found]]
    ) -> LaidOut:
        rows, fields = np.flatnonzero(taken), len(self._fields)
        place = np.cumsum(taken) - 1
        begins = np.tile(page.starts[rows], (fields, 1))
        ends = begins.copy()
        absent = np.ones((fields, len(rows)), dtype=bool)
        for layout, some in found:
            its_fields = np.array(layout.fields)
            with_quotes = layout.are_strings() & self._json[its_fields]
            at = its_fields[:, None], place[some.rows]
            begins[at], ends[at] = some.begins - with_quotes, some.ends + with_quotes
            absent[at] = False
        columns, kept = [], np.ones(len(rows), dtype=bool)
        for number, field in enumerate(self._fields):
            if absent[number].all():
                columns.append(_without_value(field, len(rows)))
                continue
            null = absent[number] if absent[number].any() else None
            texts = page.texts(begins[number], ends[number], null)
            if null is not None and reads_json_text(field):
                texts = pc.fill_null(texts, "null")
            amount = field.column == self._amount_column
            column, refused = column_of_texts(field, texts, amount)
            columns.append(column)
            kept &= ~refused
            if field.column == DEDUP_COLUMN:
                kept &= np.asarray(pc.not_equal(column, ""))
        if not kept.all():
            columns = [column.filter(pa.array(kept)) for column in columns]
            taken[rows[~kept]] = False
        return LaidOut(columns, taken)


def _without_value(field: SchemaField, rows: int) -> pa.Array:
    """The column of a field that no message has, or has as null: of any type, but not REQUIRED."""
    kind = field.arrow_field().type
    if field.mode != "REPEATED":
        return pa.nulls(rows, kind)
    none = pa.array(np.zeros(rows + 1, dtype=np.int32))
    return pa.ListArray.from_arrays(none, pa.array([], kind.value_type), type=kind)
