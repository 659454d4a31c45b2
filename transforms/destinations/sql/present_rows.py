"""What a shard's recovery asks of the tables: the texts behind contract/present_rows.py.

One query per question, for any number of shards and partitions. The payment tables are partitioned
by event time in BigQuery, so what recovery asks is bounded by it. `rejected_records` is partitioned
by the time of its writing, which says nothing about offsets: its coordinates and ids are read as a
whole, and so are all coordinates by adopt, which is rare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from transforms.destinations.sql.coordinates import (
    event_times,
    rows_of_tables,
    same_partition,
    union,
)
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.hashing import COORDINATE_TEXT, fingerprint, shard_number
from transforms.model.tables import (
    DUPLICATES,
    GAPS,
    GAPS_SCHEMA,
    PAYMENTS,
    REJECTED,
    TOTALS,
    TOTALS_TABLE_SCHEMA,
)

SHARD_OFFSETS: Final = "shard_offsets"
"""Rows that travel with a question: `shard`, `kafka_topic`, `kafka_partition`, `above`."""

BOUNDS: Final = "bounds"
"""Rows that travel with a question: `kafka_topic`, `kafka_partition`, `bound`."""

SHARDS: Final = "wanted_shards"
"""Rows that travel with a question: `shard`."""

WANTED: Final = "wanted"
"""Rows that travel with a question: the KEY_COLUMNS of the table."""


def rows_above(dialect: Dialect) -> str:
    """The query for rows above the offsets; columns of PRESENT_SCHEMA.

    Rows SHARDS and SHARD_OFFSETS; parameters `shards`, the number of all shards, and `oldest`
    (microseconds). The offsets' lowest bound per partition comes first: hashing is what costs.
    """
    given = dialect.given_rows(SHARD_OFFSETS)
    return f"""
WITH recent AS (
    SELECT r.table_name, r.kafka_topic, r.kafka_partition, r.kafka_offset, r.event_time_us,
        {dialect.digest("r.hashed")} AS digest
    FROM ({_hashed_rows(dialect)}
    ) AS r LEFT JOIN (
        SELECT kafka_topic, kafka_partition, MIN(above) AS above FROM {given}
        GROUP BY kafka_topic, kafka_partition
    ) AS low ON {same_partition("r", "low")}
    WHERE low.above IS NULL OR r.kafka_offset > low.above
), sharded AS (
    SELECT r.table_name, r.kafka_topic, r.kafka_partition, r.kafka_offset, r.event_time_us,
        r.digest, {shard_number(dialect, "r.digest")} AS shard
    FROM recent AS r
)
SELECT s.shard, s.table_name, s.kafka_topic, s.kafka_partition, s.kafka_offset,
    {fingerprint(dialect, "s.digest")} AS fingerprint, s.event_time_us
FROM sharded AS s LEFT JOIN (
    SELECT shard, kafka_topic, kafka_partition, above FROM {given}
) AS f ON f.shard = s.shard AND {same_partition("f", "s")}
WHERE s.shard IN (SELECT shard FROM {dialect.given_rows(SHARDS)})
    AND (f.above IS NULL OR s.kafka_offset > f.above)"""


def count_above(dialect: Dialect) -> str:
    """The query for the number of rows above: `shard`, `table_name`, `n`.

    Rows and parameters as of `rows_above`.
    """
    return f"""
SELECT shard, table_name, COUNT(*) AS n FROM ({rows_above(dialect)}) GROUP BY shard, table_name"""


def _hashed_rows(dialect: Dialect) -> str:
    """Coordinates with `hashed`, the text whose hash is the row's shard and fingerprint."""
    oldest = dialect.moment(dialect.parameter("oldest"))
    payments = [
        f"""
    SELECT '{table}' AS table_name, kafka_topic, kafka_partition, kafka_offset,
        transaction_id AS hashed, {dialect.micros("event_time")} AS event_time_us
    FROM {dialect.table(table)} WHERE event_time >= {oldest}"""
        for table in (PAYMENTS, DUPLICATES)
    ]
    rejected = f"""
    SELECT '{REJECTED}', r.kafka_topic, r.kafka_partition, r.kafka_offset,
        COALESCE(NULLIF(r.transaction_id, ''), {COORDINATE_TEXT}), {dialect.micros("r.event_time")}
    FROM {dialect.aliased(REJECTED, "r")}"""
    return union([*payments, rejected])


def count_present(dialect: Dialect, table: str, keys: Sequence[str], column: str | None) -> str:
    """One number: how many rows of WANTED have a row in `table` with the same `keys`.

    column: a moment that lies between the parameters `earliest` and `latest` (microseconds) in all
    rows that are looked for, so that partitions without any of them are not read; None: no bounds.
    """
    conditions = [f"r.{key} = w.{key}" for key in keys]
    if column is not None:
        earliest, latest = (
            dialect.moment(dialect.parameter(name)) for name in ("earliest", "latest")
        )
        conditions += [f"r.{column} >= {earliest}", f"r.{column} <= {latest}"]
    return f"""
SELECT COUNT(*) AS n FROM {dialect.given_rows(WANTED)} AS w
WHERE EXISTS (SELECT 1 FROM {dialect.aliased(table, "r")} WHERE {" AND ".join(conditions)})"""


def totals_since(dialect: Dialect) -> str:
    """The query for totals from a position on; columns of TOTALS_TABLE_SCHEMA.

    Parameters `epoch`, `stream_offset`.
    """
    epoch, offset = (dialect.parameter(name) for name in ("epoch", "stream_offset"))
    return f"""
SELECT {", ".join(TOTALS_TABLE_SCHEMA.names)} FROM {dialect.table(TOTALS)}
WHERE stream_epoch > {epoch} OR (stream_epoch = {epoch} AND stream_offset >= {offset})"""


def gaps_above(dialect: Dialect) -> str:
    """The query for gaps that begin above their partition's bound; columns of GAPS_SCHEMA.

    Rows BOUNDS.
    """
    return f"""
SELECT {", ".join(f"g.{column}" for column in GAPS_SCHEMA.names)}
FROM {dialect.aliased(GAPS, "g")} LEFT JOIN (
    SELECT kafka_topic, kafka_partition, bound FROM {dialect.given_rows(BOUNDS)}
) AS b ON {same_partition("g", "b")}
WHERE b.bound IS NULL OR g.first_offset > b.bound"""


def first_missing(dialect: Dialect) -> str:
    """The query for the first missing offset: `kafka_topic`, `kafka_partition`, `n`.

    Rows BOUNDS.
    """
    bounds, partition = dialect.given_rows(BOUNDS), "kafka_topic, kafka_partition"
    rows = f"""(
        SELECT r.kafka_topic, r.kafka_partition, r.kafka_offset
        FROM ({rows_of_tables(dialect)}) AS r JOIN {bounds} AS b ON {same_partition("r", "b")}
        WHERE r.kafka_offset >= b.bound
    )"""
    order = f"PARTITION BY {partition} ORDER BY first_offset, last_offset"
    return f"""
WITH spans AS (
    {dialect.runs_of_rows(rows)}
    UNION ALL
    SELECT r.kafka_topic, r.kafka_partition, r.first_offset, r.last_offset
    FROM {dialect.aliased(GAPS, "r")} JOIN {bounds} AS b ON {same_partition("r", "b")}
    WHERE r.last_offset >= b.bound
    UNION ALL
    SELECT {partition}, bound - 1, bound - 1 FROM {bounds}
), ordered AS (
    SELECT {partition}, MAX(last_offset) OVER ({order} ROWS UNBOUNDED PRECEDING) + 1 AS next_offset,
        LEAD(first_offset) OVER ({order}) AS next_first
    FROM spans
)
SELECT {partition}, MIN(next_offset) AS n FROM ordered
WHERE next_first IS NULL OR next_first > next_offset
GROUP BY {partition}"""


def highest_event_times(dialect: Dialect) -> str:
    """The query for the highest event time: `kafka_topic`, `kafka_partition`, `n` (microseconds).

    Rows BOUNDS.
    """
    return f"""
SELECT r.kafka_topic, r.kafka_partition, {dialect.micros("MAX(r.event_time)")} AS n
FROM ({event_times(dialect)}) AS r
JOIN {dialect.given_rows(BOUNDS)} AS b ON {same_partition("r", "b")}
WHERE r.kafka_offset < b.bound GROUP BY r.kafka_topic, r.kafka_partition"""
