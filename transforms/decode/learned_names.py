"""Which fields that the schema does not name are decoded together with those that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

import msgspec

from transforms.decode.unknown_columns import Names
from transforms.decode.unknown_fields import UnknownFields, UnknownFinder

_WORTH: Final = 64
"""Values with a name, of _PERIOD, from which on it is learned. For fewer, new types and decoding
the slice once more cost more than they save.
"""

_PERIOD: Final = 5_000
"""Values after which the count begins anew."""

_MOST: Final = 64
"""Names at one time: each costs a little in every value, and producers may make up new ones."""

_SAMPLE: Final = 128
"""Values of a slice that are looked at, and names of a value."""

_COUNTED: Final = 4_096
"""Names that are counted at one time, however many producers make up."""

_LONGEST: Final = 300
"""Characters of a name, as in BigQuery's own columns."""


class LearnedNames:
    """The names that recent values had. They decide about speed and nothing else."""

    def __init__(self, finder: UnknownFinder) -> None:
        self.names: Names = frozenset()
        self._finder = finder
        self._missed: dict[tuple[str, ...], float] = {}
        self._values = 0
        self._in_use = False

    def learn(self, refused: Sequence[bytes]) -> bool:
        """Whether `names` has changed, so that decoding these values again is worth it.

        refused: the values of a slice that have, perhaps, a field that neither schema nor names
        have.
        """
        # An odd step, since producers may take turns.
        sample = refused[:: len(refused) // _SAMPLE | 1]
        for value in sample:
            for path in self._paths(value) - self.names:
                count = self._missed.get(path, 0)
                if count or len(self._missed) < _COUNTED:
                    self._missed[path] = count + len(refused) / len(sample)
        often = sorted(self._missed, key=self._missed.__getitem__, reverse=True)[:_MOST]
        new = [path for path in often if self._missed[path] >= _WORTH]
        if not new:
            return False
        together = self.names.union(new)
        self.names = together if len(together) <= _MOST else frozenset(new)
        self._missed.clear()
        return True

    def decoded(self, values: int, some_unknown: bool) -> None:
        """Counts the values of a slice. Names that no value had for a while are forgotten."""
        self._values += values
        self._in_use |= some_unknown
        if self._values >= _PERIOD:
            if not self._in_use:
                self.names = frozenset()
            self._missed.clear()
            self._values, self._in_use = 0, False

    def _paths(self, value: bytes) -> set[tuple[str, ...]]:
        try:
            return set(islice(_paths(self._finder.find(value), ()), _SAMPLE))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return set()


def _paths(unknown: UnknownFields, parent: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, found in unknown.items():
        path = (*parent, name)
        if isinstance(found, msgspec.Raw):
            if len(name) <= _LONGEST and _may_be_member(name):
                yield path
        else:
            for each in found if isinstance(found, list) else [found]:
                yield from _paths(each or {}, path)


def _may_be_member(name: str) -> bool:
    """msgspec takes no quotes, backslashes and control characters in the names of a struct."""
    return '"' not in name and "\\" not in name and all(letter >= " " for letter in name)
