"""A table cut into one sorted slice per key, without a Python object per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa


def sorted_groups(table: pa.Table, keys: Sequence[str], within: str) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """(values of the key columns, their rows sorted by the column `within`), in the order of the keys."""
    table = table.sort_by([(name, "ascending") for name in (*keys, within)])
    # One thread keeps the groups in the order of their first rows, which is the order of the slices.
    sizes = table.group_by(list(keys), use_threads=False).aggregate([([], "count_all")])
    start = 0
    for *key, rows in zip(*(sizes.column(name).to_pylist() for name in (*keys, "count_all")), strict=True):
        yield tuple(key), table.slice(start, rows)
        start += rows
