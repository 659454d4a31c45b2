"""Groups the rows of a table by topic and partition, without a Python object per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def sorted_groups(
    table: pa.Table, keys: Sequence[str], within: str
) -> Iterator[tuple[tuple[Any, ...], pa.Table]]:
    """(values of the key columns, their rows), in the order of the keys.

    The rows of a group are sorted by the column `within`.
    """
    order = [(name, "ascending") for name in keys]
    table = table.sort_by([*order, (within, "ascending")])
    # A group-by promises no order of its groups, and with one thread it usually, but not always,
    # keeps that of their first rows: keys whose hashes collide change places.
    sizes = table.group_by(list(keys)).aggregate([([], "count_all")]).sort_by(order)
    start = 0
    for *key, rows in zip(
        *(sizes.column(name).to_pylist() for name in (*keys, "count_all")), strict=True
    ):
        yield tuple(key), table.slice(start, rows)
        start += rows


def by_partition(rows: pa.RecordBatch | pa.Table) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """(topic, partition, indexes of its rows in their order); nothing for no rows."""
    if not rows.num_rows:
        return
    topics = pc.dictionary_encode(rows.column("kafka_topic"))
    topics = topics.combine_chunks() if isinstance(topics, pa.ChunkedArray) else topics
    codes = topics.indices.to_numpy()
    partitions = rows.column("kafka_partition").to_numpy()
    for code, topic in enumerate(topics.dictionary.to_pylist()):
        for partition in np.unique(partitions[codes == code]).tolist():
            yield topic, partition, np.flatnonzero((codes == code) & (partitions == partition))
