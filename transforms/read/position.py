"""Where streaming stands in one partition, as the state of the read loop holds it.

Frozen by tests/unit/read/test_position.py: a checkpoint outlives the process that wrote it.
"""

from __future__ import annotations

import msgspec


class PartitionPosition(msgspec.Struct, frozen=True, array_like=True):
    """One partition of a topic, and the next offset to read.

    topic_id, cluster_id: Kafka's own ids, None where the broker has none (librdkafka's mock
    cluster). watermark_us: microseconds, whole milliseconds; None: nothing is late yet.
    leader_epoch: of the last record read; None before the first.
    is_new: found while the job runs, so it did not hold the watermark back before. payloads_below:
    event times, in microseconds, that the shards may have expired when it began to; None: none.
    """

    topic: str
    partition: int
    topic_id: str | None
    cluster_id: str | None
    offset: int
    watermark_us: int | None
    leader_epoch: int | None = None
    is_new: bool = False
    payloads_below: int | None = None


def encode_position(position: PartitionPosition) -> bytes:
    """The position as a checkpoint holds it."""
    return msgspec.msgpack.encode(position)


def decode_position(encoded: bytes) -> PartitionPosition:
    """The position that `encode_position` has encoded."""
    return msgspec.msgpack.decode(encoded, type=PartitionPosition)
