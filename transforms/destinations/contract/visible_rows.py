"""A repair's questions about the tables (pipeline/run/repair.py), and what destinations share.

Shared are the parameters of the queries and the form of the answers; the SQL is each dialect's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.model.coordinates import OffsetRange, TopicPartition, expand_runs
from transforms.model.partitions import sorted_groups
from transforms.model.tables import ROW_TABLES, TOTALS_SCHEMA


def range_parameters(ranges: Sequence[OffsetRange]) -> dict[str, Any]:
    """Four lists of one length, which a query puts together again.

    They are `topics`, `partitions`, `from_offsets` and `to_offsets`.
    """
    names = ("topics", "partitions", "from_offsets", "to_offsets")
    return {name: [where[index] for where in ranges] for index, name in enumerate(names)}


def offsets_by_table(
    runs: pa.Table, ranges: Sequence[OffsetRange]
) -> Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]:
    """Per partition of a range and per table of records the sorted offsets, each once.

    runs: `table_name`, `kafka_topic`, `kafka_partition`, `first_offset`, `last_offset` of runs
    without a hole, within the ranges.
    """
    none = np.empty(0, dtype=np.int64)
    found = {where[:2]: dict.fromkeys(ROW_TABLES, none) for where in ranges}
    for (table, *position), rows in sorted_groups(
        runs, ("table_name", "kafka_topic", "kafka_partition"), "first_offset"
    ):
        first, last = (rows.column(name).to_numpy() for name in ("first_offset", "last_offset"))
        found[position[0], position[1]][table] = expand_runs(first, last)
    return found


def gaps_by_partition(
    gaps: pa.Table, ranges: Sequence[OffsetRange]
) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
    """Per partition of a range the (first, last) of its gaps, sorted.

    gaps: columns as in `offset_gaps`, within the ranges.
    """
    found: dict[TopicPartition, Sequence[tuple[int, int]]] = {where[:2]: () for where in ranges}
    for (topic, partition), rows in sorted_groups(
        gaps, ("kafka_topic", "kafka_partition"), "first_offset"
    ):
        found[topic, partition] = list(
            zip(
                *(rows.column(name).to_pylist() for name in ("first_offset", "last_offset")),
                strict=True,
            )
        )
    return found


def totals_batch(found: pa.Table) -> pa.RecordBatch:
    """Rows of `control_totals`, which may be none, with exactly its columns."""
    return pa.RecordBatch.from_arrays(
        [
            column.combine_chunks()
            for column in found.select(TOTALS_SCHEMA.names).cast(TOTALS_SCHEMA).columns
        ],
        schema=TOTALS_SCHEMA,
    )


def single_number(found: pa.Table) -> int:
    """The number that a query for one number has found."""
    return int(found.column(0)[0].as_py())


class VisibleRows(Protocol):
    """Questions about the visible rows of ranges: not empty, and at most one per partition.

    Each question takes all ranges at once: the tables are not sorted by coordinates, so it reads
    their coordinates as a whole.
    """

    def present_offsets(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]:
        """The sorted offsets of the ranges that have a row, each once.

        By partition of a range, and by table of records.
        """

    def present_gaps(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
        """The (first, last) of the gaps that begin in a range, sorted, per partition of a range.

        Gaps are rows of `offset_gaps`.
        """

    def lost_offsets(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
        """As `present_gaps`, of the gaps alone that are accepted losses."""

    def rejected_by_reason(
        self, ranges: Sequence[OffsetRange], first_time: int, last_time: int
    ) -> Mapping[str, int]:
        """Rejected records in the ranges by their reason.

        first_time, last_time: bounds of their `ingest_time`, inclusive, in microseconds: other
        partitions of the table are not read.
        """

    def present_totals(
        self, ranges: Sequence[OffsetRange], amount_column: str | None, currency_column: str | None
    ) -> pa.RecordBatch:
        """Rows of `control_totals`, as the visible rows of the ranges add up to them."""

    def count_rows(self) -> int:
        """Rows in the three tables of records."""

    def count_in_totals(self) -> int:
        """Sum of `records` in `control_totals`."""
