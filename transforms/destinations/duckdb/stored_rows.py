"""What is in the tables of a DuckDB file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.shard_ledger import Offsets
from transforms.destinations.duckdb import present_rows, visible_rows
from transforms.destinations.duckdb.live_ids import LIVE_IDS, live_ids_parameters
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.fingerprints import FINGERPRINT


class DuckDBStoredRows:
    """contract/stored_rows.py."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session

    def live_ids(self, watermark_us: int | None, extra_retention_us: int) -> pa.Table:
        table = self._session.query(LIVE_IDS, live_ids_parameters(watermark_us, extra_retention_us))
        return table.set_column(0, "fingerprint", table.column("fingerprint").cast(FINGERPRINT))

    def present_offsets(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]:
        return visible_rows.present_offsets(self._session.query, ranges)

    def present_gaps(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
        return visible_rows.present_gaps(self._session.query, ranges)

    def present_totals(
        self, ranges: Sequence[OffsetRange], amount_column: str | None, currency_column: str | None
    ) -> pa.RecordBatch:
        query = self._session.query
        return visible_rows.present_totals(query, ranges, amount_column, currency_column)

    def count_rows(self) -> int:
        return visible_rows.count_rows(self._session.query)

    def count_in_totals(self) -> int:
        return visible_rows.count_in_totals(self._session.query)

    def rows_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets], oldest_event_time_us: int | None
    ) -> pa.Table:
        cursor = self._session.cursor()
        return present_rows.rows_above(cursor, shards, shard_offsets, oldest_event_time_us)

    def count_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets]
    ) -> dict[tuple[int, str], int]:
        return present_rows.count_above(self._session.cursor(), shards, shard_offsets)

    def first_missing(self, begins: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return present_rows.first_missing(self._session.cursor(), begins)

    def highest_event_times(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return present_rows.highest_event_times(self._session.cursor(), ends)

    def totals_since(self, epoch: int, stream_offset: int) -> pa.Table:
        return present_rows.totals_since(self._session.cursor(), epoch, stream_offset)

    def gaps_above(self, offsets: Offsets) -> pa.Table:
        return present_rows.gaps_above(self._session.cursor(), offsets)

    def count_present(self, table: str, rows: pa.RecordBatch) -> int:
        return present_rows.count_present(self._session.cursor(), table, rows)
