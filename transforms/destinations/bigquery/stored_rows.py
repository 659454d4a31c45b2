"""What is in the tables of a BigQuery dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.bigquery import live_ids, present_rows, visible_rows
from transforms.destinations.bigquery.sql import Name
from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.shard_ledger import Offsets
from transforms.model.coordinates import OffsetRange, TopicPartition


class BigQueryStoredRows:
    """contract/stored_rows.py. query: Queries.query. table: name -> full name, quoted."""

    def __init__(self, query: Callable[[str, Any], pa.Table], table: Name) -> None:
        self._query = query
        self._table = table

    def live_ids(self, watermark_us: int | None, extra_retention_us: int) -> pa.Table:
        return live_ids.live_ids(self._query, self._table, watermark_us, extra_retention_us)

    def present_offsets(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]:
        return visible_rows.present_offsets(self._query, self._table, ranges)

    def present_gaps(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
        return visible_rows.present_gaps(self._query, self._table, ranges)

    def present_totals(
        self, ranges: Sequence[OffsetRange], amount_column: str | None, currency_column: str | None
    ) -> pa.RecordBatch:
        return visible_rows.present_totals(
            self._query, self._table, ranges, amount_column, currency_column
        )

    def count_rows(self) -> int:
        return visible_rows.count_rows(self._query, self._table)

    def count_in_totals(self) -> int:
        return visible_rows.count_in_totals(self._query, self._table)

    def rows_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets], oldest_event_time_us: int | None
    ) -> pa.Table:
        return present_rows.rows_above(
            self._query, self._table, shards, shard_offsets, oldest_event_time_us
        )

    def count_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets]
    ) -> dict[tuple[int, str], int]:
        return present_rows.count_above(self._query, self._table, shards, shard_offsets)

    def first_missing(self, begins: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return present_rows.first_missing(self._query, self._table, begins)

    def highest_event_times(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return present_rows.highest_event_times(self._query, self._table, ends)

    def totals_since(self, epoch: int, stream_offset: int) -> pa.Table:
        return present_rows.totals_since(self._query, self._table, epoch, stream_offset)

    def gaps_above(self, offsets: Offsets) -> pa.Table:
        return present_rows.gaps_above(self._query, self._table, offsets)

    def count_present(self, table: str, rows: pa.RecordBatch) -> int:
        return present_rows.count_present(self._query, self._table, table, rows)
