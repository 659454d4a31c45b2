"""What of a shard is in the tables, in DuckDB's SQL: the rule of transforms/model/fingerprints.py a
second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import duckdb
import pyarrow as pa

from transforms.destinations.contract.present_rows import KEY_COLUMNS, PRESENT_SCHEMA, ShardOffsets
from transforms.destinations.contract.shard_ledger import Offsets
from transforms.model.coordinates import TopicPartition
from transforms.model.tables import (
    DUPLICATES,
    GAPS,
    GAPS_SCHEMA,
    PAYMENTS,
    REJECTED,
    ROW_TABLES,
    TOTALS,
    TOTALS_TABLE_SCHEMA,
)

_PAYMENT_ROWS: Final = " UNION ALL ".join(
    f"SELECT '{table}' AS table_name, kafka_topic, kafka_partition, kafka_offset, transaction_id AS"
    " hashed, epoch_us(event_time) AS event_time_us"
    f" FROM {table} WHERE epoch_us(event_time) >= $oldest"
    for table in (PAYMENTS, DUPLICATES)
)
_REJECTED_ROWS: Final = f"""SELECT '{REJECTED}', kafka_topic, kafka_partition, kafka_offset,
    COALESCE(NULLIF(transaction_id, ''), concat(kafka_topic, ':', kafka_partition, ':', kafka_offset)), epoch_us(event_time) FROM {REJECTED}"""

# The offsets' lowest bound per partition comes first: hashing is what costs.
_ROWS_ABOVE: Final = f"""
WITH recent AS (
    SELECT r.*, sha256(hashed) AS digest FROM ({_PAYMENT_ROWS} UNION ALL {_REJECTED_ROWS}) r
    LEFT JOIN (SELECT kafka_topic, kafka_partition, MIN(above) AS above FROM _floors GROUP BY ALL) low USING (kafka_topic, kafka_partition)
    WHERE low.above IS NULL OR r.kafka_offset > low.above
), sharded AS (
    SELECT *, ((('0x' || left(digest, 4))::BIGINT * $shards) >> 16)::INTEGER AS shard FROM recent
)
SELECT s.shard, table_name, s.kafka_topic, s.kafka_partition, kafka_offset, unhex(left(digest, 20)) AS fingerprint, event_time_us
FROM sharded s LEFT JOIN _floors f ON f.shard = s.shard AND f.kafka_topic = s.kafka_topic AND f.kafka_partition = s.kafka_partition
WHERE s.shard IN (SELECT unnest($wanted::INTEGER[])) AND (f.above IS NULL OR kafka_offset > f.above)
"""
_COUNT_ABOVE: Final = f"SELECT shard, table_name, COUNT(*) FROM ({_ROWS_ABOVE}) GROUP BY ALL"
_FLOORS: Final = pa.schema(
    [
        ("shard", pa.int32()),
        ("kafka_topic", pa.string()),
        ("kafka_partition", pa.int32()),
        ("above", pa.int64()),
    ]
)
_EVERYTHING: Final = -(1 << 62)


def rows_above(
    cursor: duckdb.DuckDBPyConnection,
    shards: int,
    shard_offsets: Sequence[ShardOffsets],
    oldest_event_time_us: int | None,
) -> pa.Table:
    with _registered(cursor, shard_offsets):
        return (
            cursor.sql(_ROWS_ABOVE, params=_parameters(shards, shard_offsets, oldest_event_time_us))
            .to_arrow_table()
            .cast(PRESENT_SCHEMA)
        )


def count_above(
    cursor: duckdb.DuckDBPyConnection, shards: int, shard_offsets: Sequence[ShardOffsets]
) -> dict[tuple[int, str], int]:
    with _registered(cursor, shard_offsets):
        found = cursor.execute(_COUNT_ABOVE, _parameters(shards, shard_offsets, None)).fetchall()
    return {(shard, table): count for shard, table, count in found}


def _parameters(
    shards: int, shard_offsets: Sequence[ShardOffsets], oldest_event_time_us: int | None
) -> dict[str, Any]:
    oldest = _EVERYTHING if oldest_event_time_us is None else oldest_event_time_us
    return {"shards": shards, "oldest": oldest, "wanted": [one.shard for one in shard_offsets]}


@contextmanager
def _registered(
    cursor: duckdb.DuckDBPyConnection, shard_offsets: Sequence[ShardOffsets]
) -> Iterator[None]:
    """`_floors` for the query. A partition that only some of the shards know counts from its
    beginning for the others.
    """
    partitions = {
        (topic, partition)
        for one in shard_offsets
        for topic, known in one.offsets.items()
        for partition in known
    }
    rows = [
        {
            "shard": one.shard,
            "kafka_topic": topic,
            "kafka_partition": partition,
            "above": one.offsets.get(topic, {}).get(partition, -1),
        }
        for one in shard_offsets
        for topic, partition in partitions
    ]
    cursor.register("_floors", pa.Table.from_pylist(rows, schema=_FLOORS))
    try:
        yield
    finally:
        cursor.unregister("_floors")


def count_present(cursor: duckdb.DuckDBPyConnection, table: str, rows: pa.RecordBatch) -> int:
    keys = ", ".join(KEY_COLUMNS[table])
    cursor.register("_wanted", pa.Table.from_batches([rows.select(list(KEY_COLUMNS[table]))]))
    ((found,),) = cursor.execute(
        f"SELECT COUNT(*) FROM _wanted WHERE ({keys}) IN (SELECT ({keys}) FROM {table})"
    ).fetchall()
    cursor.unregister("_wanted")
    return int(found)


def totals_since(cursor: duckdb.DuckDBPyConnection, epoch: int, stream_offset: int) -> pa.Table:
    found = cursor.sql(
        f"SELECT * FROM {TOTALS} WHERE stream_epoch > $epoch OR (stream_epoch = $epoch AND"
        " stream_offset >= $stream_offset)",
        params={"epoch": epoch, "stream_offset": stream_offset},
    )
    return found.to_arrow_table().select(TOTALS_TABLE_SCHEMA.names).cast(TOTALS_TABLE_SCHEMA)


def gaps_above(cursor: duckdb.DuckDBPyConnection, offsets: Offsets) -> pa.Table:
    with _registered(cursor, [ShardOffsets(0, offsets)]):
        found = cursor.sql(
            f"SELECT g.* FROM {GAPS} g LEFT JOIN _floors USING (kafka_topic, kafka_partition) WHERE"
            " above IS NULL OR first_offset > above"
        )
        return found.to_arrow_table().select(GAPS_SCHEMA.names).cast(GAPS_SCHEMA)


_COVERED: Final = " UNION ALL ".join(
    [
        *(
            "SELECT kafka_topic, kafka_partition, kafka_offset AS first_offset, kafka_offset AS"
            f" last_offset FROM {table}"
            for table in ROW_TABLES
        ),
        f"SELECT kafka_topic, kafka_partition, first_offset, last_offset FROM {GAPS}",
    ]
)
_FIRST_MISSING: Final = f"""
WITH spans AS (
    SELECT kafka_topic, kafka_partition, first_offset, last_offset FROM ({_COVERED}) JOIN _at USING (kafka_topic, kafka_partition)
    WHERE last_offset >= bound
    UNION ALL SELECT kafka_topic, kafka_partition, bound - 1, bound - 1 FROM _at
), ordered AS (
    SELECT kafka_topic, kafka_partition, MAX(last_offset) OVER before_and_here + 1 AS next_offset,
        LEAD(first_offset) OVER (PARTITION BY kafka_topic, kafka_partition ORDER BY first_offset, last_offset) AS following
    FROM spans
    WINDOW before_and_here AS (PARTITION BY kafka_topic, kafka_partition ORDER BY first_offset, last_offset ROWS UNBOUNDED PRECEDING)
)
SELECT kafka_topic, kafka_partition, MIN(next_offset) FROM ordered WHERE following IS NULL OR following > next_offset GROUP BY ALL
"""
_HIGHEST: Final = f"""
SELECT kafka_topic, kafka_partition, MAX(epoch_us(event_time)) FROM (
    SELECT kafka_topic, kafka_partition, kafka_offset, event_time FROM {PAYMENTS}
    UNION ALL SELECT kafka_topic, kafka_partition, kafka_offset, event_time FROM {DUPLICATES}
) JOIN _at USING (kafka_topic, kafka_partition) WHERE kafka_offset < bound GROUP BY ALL
"""


def first_missing(
    cursor: duckdb.DuckDBPyConnection, begins: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    return _per_partition(cursor, _FIRST_MISSING, begins)


def highest_event_times(
    cursor: duckdb.DuckDBPyConnection, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    return _per_partition(cursor, _HIGHEST, ends)


def _per_partition(
    cursor: duckdb.DuckDBPyConnection, sql: str, at: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    schema = pa.schema(
        [("kafka_topic", pa.string()), ("kafka_partition", pa.int32()), ("bound", pa.int64())]
    )
    rows = [
        {"kafka_topic": topic, "kafka_partition": partition, "bound": offset}
        for (topic, partition), offset in at.items()
    ]
    cursor.register("_at", pa.Table.from_pylist(rows, schema=schema))
    found = cursor.execute(sql).fetchall()
    cursor.unregister("_at")
    return {(topic, partition): value for topic, partition, value in found}
