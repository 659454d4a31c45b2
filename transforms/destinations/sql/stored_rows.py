"""What the tables of records hold, as rows: for a cold start, a repair, a recovery and `adopt`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.destinations.contract.live_ids import SomeShards
from transforms.destinations.contract.present_rows import KEY_COLUMNS, PRESENT_SCHEMA, ShardOffsets
from transforms.destinations.contract.seed import Seed
from transforms.destinations.contract.shard_ledger import Offsets
from transforms.destinations.contract.visible_rows import (
    gaps_by_partition,
    offsets_by_table,
    range_parameters,
    single_number,
    totals_batch,
)
from transforms.destinations.sql import present_rows, visible_rows
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.given_rows import bounds_table, shard_offsets_table, shards_table
from transforms.destinations.sql.present_rows import BOUNDS, SHARD_OFFSETS, SHARDS, WANTED
from transforms.destinations.sql.unfinished_windows import LOWEST, unfinished_windows
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.tables import EARLIEST_US, GAPS_SCHEMA, TOTALS_TABLE_SCHEMA


class StoredRows(ABC):
    """The questions of contract/live_ids.py, visible_rows.py and present_rows.py, in one dialect.

    Destinations add how a question is asked, and the cold start, whose cost decides its text.
    partitioned_by: name of a table -> the column, of moments, that `count_present` bounds.
    """

    def __init__(self, dialect: Dialect, partitioned_by: Mapping[str, str]) -> None:
        self._dialect = dialect
        self._partitioned_by = partitioned_by

    @abstractmethod
    def _ask(
        self, sql: str, values: Mapping[str, Any], rows: Mapping[str, pa.Table] | None = None
    ) -> pa.Table:
        """The answer to a question.

        values: parameters by name. rows: small tables that travel with the question, by name
        (Dialect.given_rows).
        """

    @abstractmethod
    def live_ids(
        self,
        watermark_us: int | None,
        extra_retention_us: int,
        only: SomeShards | None = None,
        seed: Seed | None = None,
    ) -> pa.Table: ...

    # What a repair asks.

    def present_offsets(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]:
        sql = visible_rows.present_offsets(self._dialect)
        return offsets_by_table(self._ask(sql, range_parameters(ranges)), ranges)

    def present_gaps(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
        sql = visible_rows.present_gaps(self._dialect)
        return gaps_by_partition(self._ask(sql, range_parameters(ranges)), ranges)

    def lost_offsets(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
        sql = visible_rows.lost_offsets(self._dialect)
        return gaps_by_partition(self._ask(sql, range_parameters(ranges)), ranges)

    def rejected_by_reason(
        self, ranges: Sequence[OffsetRange], first_time: int, last_time: int
    ) -> Mapping[str, int]:
        times = {"first_time": first_time, "last_time": last_time}
        found = self._ask(
            visible_rows.rejected_by_reason(self._dialect), {**range_parameters(ranges), **times}
        )
        return {row["reason"]: row["n"] for row in found.to_pylist()}

    def present_totals(
        self, ranges: Sequence[OffsetRange], amount_column: str | None, currency_column: str | None
    ) -> pa.RecordBatch:
        sql = visible_rows.present_totals(self._dialect, amount_column, currency_column)
        return totals_batch(self._ask(sql, range_parameters(ranges)))

    def count_rows(self) -> int:
        return single_number(self._ask(visible_rows.count_rows(self._dialect), {}))

    def count_in_totals(self) -> int:
        return single_number(self._ask(visible_rows.count_in_totals(self._dialect), {}))

    # What a recovery and `adopt` ask.

    def rows_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets], oldest_event_time_us: int | None
    ) -> pa.Table:
        sql = present_rows.rows_above(self._dialect)
        found = self._ask_shards(sql, shards, shard_offsets, oldest_event_time_us)
        return found.select(PRESENT_SCHEMA.names).cast(PRESENT_SCHEMA)

    def count_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets]
    ) -> dict[tuple[int, str], int]:
        sql = present_rows.count_above(self._dialect)
        found = self._ask_shards(sql, shards, shard_offsets, None)
        return {(row["shard"], row["table_name"]): row["n"] for row in found.to_pylist()}

    def first_missing(self, begins: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return self._ask_partitions(present_rows.first_missing(self._dialect), begins)

    def highest_event_times(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return self._ask_partitions(present_rows.highest_event_times(self._dialect), ends)

    def unfinished_windows(self, positions: Mapping[TopicPartition, int]) -> list[str]:
        sql = unfinished_windows(self._dialect)
        lowest = {LOWEST: min(positions.values(), default=0)}
        found = self._ask(sql, lowest, {BOUNDS: bounds_table(positions)})
        windows: list[str] = found.column("window_start").to_pylist()
        return windows

    def totals_since(self, epoch: int, stream_offset: int) -> pa.Table:
        sql = present_rows.totals_since(self._dialect)
        found = self._ask(sql, {"epoch": epoch, "stream_offset": stream_offset})
        return found.cast(TOTALS_TABLE_SCHEMA)

    def gaps_above(self, offsets: Offsets) -> pa.Table:
        bounds = {
            (topic, partition): offset
            for topic, known in offsets.items()
            for partition, offset in known.items()
        }
        sql = present_rows.gaps_above(self._dialect)
        return self._ask(sql, {}, {BOUNDS: bounds_table(bounds)}).cast(GAPS_SCHEMA)

    def count_present(self, table: str, rows: pa.RecordBatch) -> int:
        keys, bounds = list(KEY_COLUMNS[table]), {}
        column = self._partitioned_by.get(table)
        if column not in rows.schema.names:
            column = None
        if column is not None:
            times = rows.column(column).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
            ends = pc.min_max(times).as_py()
            bounds = {"earliest": ends["min"], "latest": ends["max"]}
        sql = present_rows.count_present(self._dialect, table, keys, column)
        wanted = pa.Table.from_batches([rows.select(keys)])
        return single_number(self._ask(sql, bounds, {WANTED: wanted}))

    def _ask_shards(
        self,
        sql: str,
        shards: int,
        shard_offsets: Sequence[ShardOffsets],
        oldest_event_time_us: int | None,
    ) -> pa.Table:
        oldest = EARLIEST_US if oldest_event_time_us is None else oldest_event_time_us
        return self._ask(
            sql,
            {"shards": shards, "oldest": max(EARLIEST_US, oldest)},
            {
                SHARDS: shards_table(shard_offsets),
                SHARD_OFFSETS: shard_offsets_table(shard_offsets),
            },
        )

    def _ask_partitions(
        self, sql: str, bounds: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        found = self._ask(sql, {}, {BOUNDS: bounds_table(bounds)})
        return {(row["kafka_topic"], row["kafka_partition"]): row["n"] for row in found.to_pylist()}
