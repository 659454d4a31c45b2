"""What of a shard is in the tables, in GoogleSQL: the rule of transforms/model/fingerprints.py a
second time. One query a question.

The payment tables are partitioned by event time, so what recovery asks is bounded by it.
`rejected_records` is partitioned by the time of its writing, which tells nothing about offsets: its
coordinates and ids are read as a whole, and so are all coordinates by adopt, which is rare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

from transforms.destinations.bigquery.queries import Parameter
from transforms.destinations.bigquery.sql import Name, array_of_structs, offset_runs, rows_of_tables
from transforms.destinations.contract.present_rows import KEY_COLUMNS, PRESENT_SCHEMA, ShardOffsets
from transforms.destinations.contract.shard_ledger import Offsets
from transforms.destinations.contract.visible_rows import single_number
from transforms.model.coordinates import TopicPartition
from transforms.model.fingerprints import FINGERPRINT_BYTES
from transforms.model.tables import (
    DUPLICATES,
    EARLIEST_US,
    GAPS,
    GAPS_SCHEMA,
    PAYMENTS,
    REJECTED,
    TOTALS,
    TOTALS_TABLE_SCHEMA,
)

Ask: TypeAlias = Callable[[str, Sequence[Parameter]], pa.Table]
"""Text and parameters -> answer: Queries.query."""

_FLOOR: Final = {"shard": "INT64", "topic": "STRING", "partition": "INT64", "above": "INT64"}
_BOUND: Final = {"topic": "STRING", "partition": "INT64", "bound": "INT64"}
_KEY_TYPES: Final = {"kafka_topic": "STRING"}
_PARTITIONED_BY: Final = {
    PAYMENTS: "event_time",
    DUPLICATES: "event_time",
    REJECTED: "ingest_time",
    TOTALS: "window_start",
}


def rows_above(
    ask: Ask,
    name: Name,
    shards: int,
    shard_offsets: Sequence[ShardOffsets],
    oldest_event_time_us: int | None,
) -> pa.Table:
    found = ask(_rows_above(name), _parameters(shards, shard_offsets, oldest_event_time_us))
    return found.select(PRESENT_SCHEMA.names).cast(PRESENT_SCHEMA)


def count_above(
    ask: Ask, name: Name, shards: int, shard_offsets: Sequence[ShardOffsets]
) -> dict[tuple[int, str], int]:
    sql = f"SELECT shard, table_name, COUNT(*) AS n FROM ({_rows_above(name)}) GROUP BY shard, table_name"
    return {
        (row["shard"], row["table_name"]): row["n"]
        for row in ask(sql, _parameters(shards, shard_offsets, None)).to_pylist()
    }


def _rows_above(name: Name) -> str:
    """Columns of PRESENT_SCHEMA. The offsets' lowest bound per partition comes first: hashing is
    what costs.
    """
    return f"""WITH recent AS (
    SELECT r.table_name, r.kafka_topic, r.kafka_partition, r.kafka_offset, r.event_time_us, SHA256(r.hashed) AS digest
    FROM ({_hashed_rows(name)}) AS r
    LEFT JOIN (SELECT topic, `partition`, MIN(above) AS above FROM UNNEST(@shard_offsets) GROUP BY topic, `partition`) AS low
    ON r.kafka_topic = low.topic AND r.kafka_partition = low.`partition`
    WHERE low.above IS NULL OR r.kafka_offset > low.above
), sharded AS (
    SELECT r.*, (CAST(CONCAT('0x', SUBSTR(TO_HEX(r.digest), 1, 4)) AS INT64) * @shards) >> 16 AS shard FROM recent AS r
)
SELECT s.shard, s.table_name, s.kafka_topic, s.kafka_partition, s.kafka_offset, SUBSTR(s.digest, 1, {FINGERPRINT_BYTES}) AS fingerprint,
    s.event_time_us
FROM sharded AS s
LEFT JOIN (SELECT shard, topic, `partition`, above FROM UNNEST(@shard_offsets)) AS f
ON f.shard = s.shard AND f.topic = s.kafka_topic AND f.`partition` = s.kafka_partition
WHERE s.shard IN UNNEST(@wanted) AND (f.above IS NULL OR s.kafka_offset > f.above)"""


def _hashed_rows(name: Name) -> str:
    """Coordinates with the text whose hash is the row's shard and fingerprint."""
    payments = (
        f"SELECT '{table}' AS table_name, kafka_topic, kafka_partition, kafka_offset,"
        " transaction_id AS hashed,"
        f" UNIX_MICROS(event_time) AS event_time_us FROM {name(table)} WHERE event_time >="
        " TIMESTAMP_MICROS(@oldest)"
        for table in (PAYMENTS, DUPLICATES)
    )
    coordinate = "CONCAT(kafka_topic, ':', CAST(kafka_partition AS STRING), ':', CAST(kafka_offset AS STRING))"
    rejected = f"""SELECT '{REJECTED}', kafka_topic, kafka_partition, kafka_offset, COALESCE(NULLIF(transaction_id, ''), {coordinate}),
        UNIX_MICROS(event_time) FROM {name(REJECTED)}"""
    return " UNION ALL ".join([*payments, rejected])


def _parameters(
    shards: int, shard_offsets: Sequence[ShardOffsets], oldest_event_time_us: int | None
) -> list[Parameter]:
    """A partition that only some of the shards know counts from its beginning for the others."""
    partitions = sorted(
        {
            (topic, partition)
            for one in shard_offsets
            for topic, known in one.offsets.items()
            for partition in known
        }
    )
    rows = [
        {
            "shard": one.shard,
            "topic": topic,
            "partition": partition,
            "above": one.offsets.get(topic, {}).get(partition, -1),
        }
        for one in shard_offsets
        for topic, partition in partitions
    ]
    oldest = EARLIEST_US if oldest_event_time_us is None else max(EARLIEST_US, oldest_event_time_us)
    return [
        array_of_structs("shard_offsets", _FLOOR, rows),
        ArrayQueryParameter("wanted", "INT64", [one.shard for one in shard_offsets]),
        ScalarQueryParameter("shards", "INT64", shards),
        ScalarQueryParameter("oldest", "INT64", oldest),
    ]


def count_present(ask: Ask, name: Name, table: str, rows: pa.RecordBatch) -> int:
    """Partitions without any of the rows are not read: a row that is there has the partition's
    column of the one that was sent.
    """
    keys = KEY_COLUMNS[table]
    wanted = array_of_structs(
        "wanted",
        {key: _KEY_TYPES.get(key, "INT64") for key in keys},
        rows.select(list(keys)).to_pylist(),
    )
    conditions = [f"r.{key} = w.{key}" for key in keys]
    bounds: list[Parameter] = []
    if (column := _PARTITIONED_BY.get(table)) and column in rows.schema.names:
        ends = pc.min_max(
            rows.column(column).cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        ).as_py()
        conditions += [
            f"r.{column} >= TIMESTAMP_MICROS(@earliest)",
            f"r.{column} <= TIMESTAMP_MICROS(@latest)",
        ]
        bounds = [
            ScalarQueryParameter("earliest", "INT64", ends["min"]),
            ScalarQueryParameter("latest", "INT64", ends["max"]),
        ]
    sql = f"""SELECT COUNT(*) AS n FROM UNNEST(@wanted) AS w
WHERE EXISTS (SELECT 1 FROM {name(table)} AS r WHERE {" AND ".join(conditions)})"""
    return single_number(ask(sql, [wanted, *bounds]))


def totals_since(ask: Ask, name: Name, epoch: int, stream_offset: int) -> pa.Table:
    sql = f"""SELECT {", ".join(TOTALS_TABLE_SCHEMA.names)} FROM {name(TOTALS)}
WHERE stream_epoch > @epoch OR (stream_epoch = @epoch AND stream_offset >= @stream_offset)"""
    parameters = [
        ScalarQueryParameter("epoch", "INT64", epoch),
        ScalarQueryParameter("stream_offset", "INT64", stream_offset),
    ]
    return ask(sql, parameters).cast(TOTALS_TABLE_SCHEMA)


def gaps_above(ask: Ask, name: Name, offsets: Offsets) -> pa.Table:
    bounds = {
        (topic, partition): offset
        for topic, known in offsets.items()
        for partition, offset in known.items()
    }
    sql = f"""SELECT {", ".join(f"g.{column}" for column in GAPS_SCHEMA.names)} FROM {name(GAPS)} AS g
LEFT JOIN (SELECT topic, `partition`, bound FROM UNNEST(@bounds)) AS b ON g.kafka_topic = b.topic AND g.kafka_partition = b.`partition`
WHERE b.bound IS NULL OR g.first_offset > b.bound"""
    return ask(sql, [_bounds(bounds)]).cast(GAPS_SCHEMA)


def first_missing(
    ask: Ask, name: Name, begins: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Rows are made runs of offsets first, block by block: a sort of all rows of a partition would
    be one worker's.
    """
    rows = f"""(SELECT r.kafka_topic, r.kafka_partition, r.kafka_offset FROM ({rows_of_tables(name)}) AS r
    JOIN UNNEST(@bounds) AS b ON {_IN_PARTITION} WHERE r.kafka_offset >= b.bound)"""
    sql = f"""WITH spans AS (
    SELECT kafka_topic, kafka_partition, first_offset, last_offset FROM ({offset_runs(rows, "kafka_topic, kafka_partition")})
    UNION ALL SELECT r.kafka_topic, r.kafka_partition, r.first_offset, r.last_offset FROM {name(GAPS)} AS r
    JOIN UNNEST(@bounds) AS b ON {_IN_PARTITION} WHERE r.last_offset >= b.bound
    UNION ALL SELECT topic, `partition`, bound - 1, bound - 1 FROM UNNEST(@bounds)
), ordered AS (
    SELECT kafka_topic, kafka_partition, MAX(last_offset) OVER (
        PARTITION BY kafka_topic, kafka_partition ORDER BY first_offset, last_offset ROWS UNBOUNDED PRECEDING) + 1 AS next_offset,
        LEAD(first_offset) OVER (PARTITION BY kafka_topic, kafka_partition ORDER BY first_offset, last_offset) AS next_first
    FROM spans
)
SELECT kafka_topic, kafka_partition, MIN(next_offset) AS value FROM ordered WHERE next_first IS NULL OR next_first > next_offset
GROUP BY kafka_topic, kafka_partition"""
    return _by_partition(ask(sql, [_bounds(begins)]))


def highest_event_times(
    ask: Ask, name: Name, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    both = " UNION ALL ".join(
        f"SELECT kafka_topic, kafka_partition, kafka_offset, event_time FROM {name(table)}"
        for table in (PAYMENTS, DUPLICATES)
    )
    sql = f"""SELECT r.kafka_topic, r.kafka_partition, UNIX_MICROS(MAX(r.event_time)) AS value FROM ({both}) AS r
JOIN UNNEST(@bounds) AS b ON {_IN_PARTITION} WHERE r.kafka_offset < b.bound GROUP BY r.kafka_topic, r.kafka_partition"""
    return _by_partition(ask(sql, [_bounds(ends)]))


_IN_PARTITION: Final = "r.kafka_topic = b.topic AND r.kafka_partition = b.`partition`"


def _bounds(at: Mapping[TopicPartition, int]) -> Parameter:
    rows = [
        {"topic": topic, "partition": partition, "bound": offset}
        for (topic, partition), offset in at.items()
    ]
    return array_of_structs("bounds", _BOUND, rows)


def _by_partition(found: pa.Table) -> dict[TopicPartition, int]:
    return {(row["kafka_topic"], row["kafka_partition"]): row["value"] for row in found.to_pylist()}
