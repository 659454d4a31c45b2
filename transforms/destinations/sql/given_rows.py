"""Small tables that travel with a question, made of offsets per partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.model.coordinates import TopicPartition

_PARTITION: Final = (("kafka_topic", pa.string()), ("kafka_partition", pa.int32()))
_SHARDS: Final = pa.schema([("shard", pa.int32())])
_SHARD_OFFSETS: Final = pa.schema([("shard", pa.int32()), *_PARTITION, ("above", pa.int64())])
_BOUNDS: Final = pa.schema([*_PARTITION, ("bound", pa.int64())])


def shards_table(shard_offsets: Sequence[ShardOffsets]) -> pa.Table:
    """Column `shard`."""
    return pa.Table.from_pylist([{"shard": one.shard} for one in shard_offsets], schema=_SHARDS)


def shard_offsets_table(shard_offsets: Sequence[ShardOffsets]) -> pa.Table:
    """Columns `shard`, `kafka_topic`, `kafka_partition`, `above`.

    A partition that only some of the shards know counts from its beginning for the others.
    """
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
            "kafka_topic": topic,
            "kafka_partition": partition,
            "above": one.offsets.get(topic, {}).get(partition, -1),
        }
        for one in shard_offsets
        for topic, partition in partitions
    ]
    return pa.Table.from_pylist(rows, schema=_SHARD_OFFSETS)


def bounds_table(bounds: Mapping[TopicPartition, int]) -> pa.Table:
    """Columns `kafka_topic`, `kafka_partition`, `bound`."""
    rows = [
        {"kafka_topic": topic, "kafka_partition": partition, "bound": offset}
        for (topic, partition), offset in bounds.items()
    ]
    return pa.Table.from_pylist(rows, schema=_BOUNDS)
