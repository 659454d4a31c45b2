"""The state of a shard that has one cell and no ring: totals and gaps."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class NoIds:
    """The part of transforms/stream/state.py that such a shard does without."""

    def read_blobs(self) -> Iterable[bytes]:
        return ()

    def add_blob(self, slot: int, blob: bytes) -> None:
        raise NotImplementedError("this shard has no ids")

    def clear_slot(self, slot: int) -> None:
        raise NotImplementedError("this shard has no ids")


class HeadCell(NoIds):
    """A Beam state cell as transforms/stream/state.py wants it."""

    def __init__(self, cell: Any) -> None:
        self._cell = cell

    def read_head(self) -> bytes | None:
        return self._cell.read() or None

    def write_head(self, cell: bytes) -> None:
        self._cell.write(cell)
