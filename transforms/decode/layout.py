"""Where the values stand in messages that one producer has written, found without reading JSON.

A producer writes the same names in the same order and spelling, so its messages differ in their
values alone: that is their layout. Whole slices are compared with it, by a few operations on all
bytes at once. A message is taken only if everything but its values equals the layout to the byte,
no string holds a quote, a backslash or a control character, and its UTF-8 is sound: then it is
valid JSON with exactly these strings, and of the other values only their form is left to be seen,
which is what their columns do (columns.py).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.decode.columns import is_read_from_text
from transforms.model.schema import SchemaField

LONGEST_TEXT: Final = 512
"""Bytes between two values, at most: so many are readable behind the last message."""

_WORD: Final = 8
_OBJECT: Final = re.compile(rb" *\{")
_MEMBER: Final = re.compile(
    rb' *"([^"\\]*)" *: *(?:"([^"\\]*)"|(-?[0-9][0-9.]*|true|false)|null) *([,}])'
)
_END: Final = re.compile(rb" *")

Places = NDArray[np.int64]
"""Places of bytes in a page, or of rows."""


class Page:
    """The messages of a slice behind each other, and where their quotes are."""

    def __init__(self, messages: Sequence[bytes], lengths: NDArray[np.int64], longest: int) -> None:
        """lengths: of the messages. longest: bytes above which one is taken by no layout."""
        self._messages = messages
        self._data = b"".join([*messages, b" " * (LONGEST_TEXT + _WORD)])
        self.ends = np.cumsum(lengths)
        self.starts = self.ends - lengths
        self._bytes = np.frombuffer(self._data, np.uint8)
        self.quotes = np.flatnonzero(self._bytes == ord('"'))
        self.first_quotes = np.searchsorted(self.quotes, self.starts)
        self.quote_counts = np.diff(np.append(self.first_quotes, len(self.quotes)))
        self.sound = (lengths <= longest) & self._is_text()
        """Messages of which each string is one of JSON if it stands between two quotes."""

    def _is_text(self) -> NDArray[np.bool_]:
        sound = np.ones(len(self.ends), dtype=bool)
        # A letter that is cut at the end of a message fits no layout: they end with a brace.
        if not is_utf8(self._data):
            sound[:] = list(map(is_utf8, self._messages))
        odd = self._bytes < ord(" ")
        if b"\\" in self._data:
            odd |= self._bytes == ord("\\")
        if odd.any():
            sound[np.searchsorted(self.ends, np.flatnonzero(odd), side="right")] = False
        return sound

    @cached_property
    def words(self) -> NDArray[np.uint64]:
        """The word of 8 bytes that begins at each byte, without a copy."""
        return np.ndarray((len(self._data) - _WORD + 1,), "<u8", self._data, strides=(1,))

    def texts(self, begins: Places, ends: Places, absent: NDArray[np.bool_] | None) -> pa.Array:
        """The text of each row, null where it is absent. The places of the rows must rise."""
        rows = len(begins)
        offsets = np.empty(2 * rows + 1, np.int32)
        offsets[0:-1:2], offsets[1::2], offsets[-1] = begins, ends, len(self._data)
        # Each second one is what stands between two of them.
        all_texts = pa.StringArray.from_buffers(
            2 * rows, pa.py_buffer(offsets), pa.py_buffer(self._data)
        )
        return all_texts.take(pa.array(np.arange(0, 2 * rows, 2), mask=absent))


@dataclass(frozen=True)
class Found:
    """The messages that have a layout. rows: in the page; begins, ends: of its values, of shape
    (values, rows).
    """

    rows: Places
    begins: Places
    ends: Places


@dataclass(frozen=True)
class Layout:
    """texts: what stands before each value and behind the last. fields: of each value, its place in
    the schema. Quotes of a string belong to the texts.
    """

    texts: tuple[bytes, ...]
    fields: tuple[int, ...]

    def find(self, page: Page, rows: Places) -> Found:
        """Those of the rows that have this layout."""
        # Each quote of such a message is one of the texts', so no value holds one.
        rows = rows[page.quote_counts[rows] == self._quotes]
        at = np.empty((len(self.texts), len(rows)), np.int64)
        at[:-1] = page.quotes[page.first_quotes[rows] + self._first_quotes] - self._before_quotes
        at[-1] = page.ends[rows] - len(self.texts[-1])
        behind = at + self._lengths
        same = at[0] == page.starts[rows]
        same &= (at[1:] >= behind[:-1]).all(axis=0)
        words = page.words[at[self._text_of_word] + self._places_of_words]
        same &= ((words & self._masks) == self._words).all(axis=0)
        if not same.all():
            rows, at, behind = rows[same], at[:, same], behind[:, same]
        return Found(rows, behind[:-1], at[1:])

    def are_strings(self) -> NDArray[np.bool_]:
        """Of each value, whether it stands between quotes; shape (values, 1)."""
        return _column([text.endswith(b'"') for text in self.texts[:-1]], bool)

    @cached_property
    def _quotes(self) -> int:
        return sum(text.count(b'"') for text in self.texts)

    @cached_property
    def _first_quotes(self) -> Places:
        """Of each text before a value, how many quotes stand before it."""
        counts = [text.count(b'"') for text in self.texts[:-1]]
        return _column(list(accumulate(counts, initial=0))[:-1], np.int64)

    @cached_property
    def _before_quotes(self) -> Places:
        """Of each text before a value, how many bytes stand before its first quote."""
        return _column([text.index(b'"') for text in self.texts[:-1]], np.int64)

    @cached_property
    def _lengths(self) -> Places:
        return _column(list(map(len, self.texts)), np.int64)

    @cached_property
    def _pieces(self) -> list[tuple[int, int]]:
        """(text, place in it) of words that together cover the texts."""
        return [
            (number, max(0, min(place, len(text) - _WORD)))
            for number, text in enumerate(self.texts)
            for place in range(0, len(text), _WORD)
        ]

    @cached_property
    def _text_of_word(self) -> NDArray[np.int64]:
        return np.array([number for number, _ in self._pieces])

    @cached_property
    def _places_of_words(self) -> Places:
        return _column([place for _, place in self._pieces], np.int64)

    @cached_property
    def _words(self) -> NDArray[np.uint64]:
        pieces = [self.texts[number][place:] for number, place in self._pieces]
        return _column([int.from_bytes(piece[:_WORD], "little") for piece in pieces], np.uint64)

    @cached_property
    def _masks(self) -> NDArray[np.uint64]:
        """Which bytes of a word count: a text may be shorter."""
        lengths = [min(_WORD, len(self.texts[number])) for number, _ in self._pieces]
        return _column([(1 << 8 * length) - 1 for length in lengths], np.uint64)


def _column(values: Sequence[int], kind: Any) -> NDArray[Any]:
    return np.array(values, dtype=kind).reshape(-1, 1)


def is_utf8(text: bytes) -> bool:
    """Whether the bytes are text."""
    try:
        return text.isascii() or text.decode() is not None
    except UnicodeDecodeError:
        return False


def layout_of(message: bytes, fields: Sequence[SchemaField]) -> Layout | None:
    """The layout of a payment that has no unknown field; None: it has none that can be compared."""
    numbers = {field.name.encode(): number for number, field in enumerate(fields)}
    opening = _OBJECT.match(message)
    if opening is None:
        return None
    at, copied = opening.end(), 0
    texts, places = [], []
    names: set[bytes] = set()
    closed = False
    while not closed:
        member = _MEMBER.match(message, at)
        if member is None or member[1] in names or member[1] not in numbers:
            return None
        names.add(member[1])
        at, closed = member.end(), member[4] == b"}"
        value = 2 if member[2] is not None else 3
        if member[value] is not None:
            field = fields[numbers[member[1]]]
            if not is_read_from_text(field, quoted=value == 2):
                return None
            texts.append(message[copied : member.start(value)])
            places.append(numbers[member[1]])
            copied = member.end(value)
    if not _END.fullmatch(message, at):
        return None
    texts.append(message[copied:])
    if max(map(len, texts)) > LONGEST_TEXT:
        return None
    return Layout(tuple(texts), tuple(places))
