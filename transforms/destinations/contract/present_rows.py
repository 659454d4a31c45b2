"""What the recovery of a shard asks of the tables: its rows above the offsets of its state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa

from transforms.destinations.contract.shard_ledger import Offsets
from transforms.model.coordinates import TopicPartition
from transforms.model.fingerprints import FINGERPRINT
from transforms.model.tables import GAPS, ROW_TABLES, TOTALS

KEY_COLUMNS: Final = {
    **dict.fromkeys(ROW_TABLES, ("kafka_topic", "kafka_partition", "kafka_offset")),
    GAPS: ("kafka_topic", "kafka_partition", "first_offset"),
    TOTALS: ("stream_epoch", "stream_offset"),
}
"""The columns whose values together identify a row that streaming writes."""

PRESENT_SCHEMA: Final = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("kafka_topic", pa.string(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
        pa.field("fingerprint", FINGERPRINT, nullable=False),
        pa.field("event_time_us", pa.int64()),
    ]
)


@dataclass(frozen=True)
class ShardOffsets:
    """The offsets above which the rows of one shard are wanted.

    A partition that is not in `offsets` counts from its beginning.
    """

    shard: int
    offsets: Offsets


class RowsAbove(Protocol):
    """The rows of a shard that are in the tables above the offsets of its state."""

    def rows_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets], oldest_event_time_us: int | None
    ) -> pa.Table:
        """Rows of the three tables that belong to a wanted shard and lie above its offsets.

        The wanted shards are those of `shard_offsets`, out of `shards`. Returns PRESENT_SCHEMA.

        One query, for any number of shards. oldest_event_time_us (microseconds) bounds the two
        payment tables, which are partitioned by event time; None: no bound. The shard of a row is
        computed from its `transaction_id`, or from its coordinate where it has none
        (transforms/model/fingerprints.py).
        """

    def count_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets]
    ) -> dict[tuple[int, str], int]:
        """(shard, table) -> number of the rows that `rows_above` would return without a bound.

        Absent where there are none.
        """

    def count_present(self, table: str, rows: pa.RecordBatch) -> int:
        """How many of `rows` have a row with the same KEY_COLUMNS in `table`."""

    def first_missing(self, begins: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """(topic, partition) -> the first offset from its begin on that is missing.

        Missing: in none of the three tables and in no gap.
        """

    def highest_event_times(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """(topic, partition) -> highest event time of payments and duplicates below its end.

        In microseconds; absent where there are none.
        """

    def unfinished_windows(self, positions: Mapping[TopicPartition, int]) -> list[str]:
        """Windows whose totals lack rows, or would count rows twice, sorted.

        A window is unfinished when it has more rows of an outcome than its totals say, or when it
        has a row at or above the position of its partition: a job that begins there counts that row
        again. Partitions that are not in `positions` are not read, so their rows are not counted
        again. Totals that say more than there is, or another amount, are no sign of an unfinished
        window: rows are missing or altered, and `check` must go on to say so. Windows as
        `CheckQueries.unobserved_windows` writes them.
        """

    def totals_since(self, epoch: int, stream_offset: int) -> pa.Table:
        """Rows of `control_totals` that streaming wrote from this position on.

        They have a higher stream_epoch, or this one and at least this stream_offset; not those of
        bounded runs. Returns TOTALS_TABLE_SCHEMA.
        """

    def gaps_above(self, offsets: Offsets) -> pa.Table:
        """Rows of `offset_gaps` whose first offset lies above `offsets`; GAPS_SCHEMA.

        A partition that is not in `offsets` counts from its beginning.
        """
