"""The elements of the PCollections between the steps: columns, never single records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LOG_APPEND_TIME: Final = 2
"""The type of a record timestamp that the broker has set, from its own clock.

A timestamp of any other type is a number that the producer wrote: an old client, a replay tool or
an outbox router may write 0, seconds, or yesterday. The numbers are librdkafka's:
https://docs.confluent.io/platform/current/clients/confluent-kafka-python/html/index.html#confluent_kafka.Message.timestamp
"""


@dataclass(frozen=True)
class RawBlock:
    """Consecutive records of one partition, as Kafka delivered them.

    All lists have the same length; offsets rise. timestamps: Kafka's, in milliseconds since 1970,
    -1 where the broker has none. timestamp_types: a byte for each timestamp, LOG_APPEND_TIME where
    the broker has set it; empty: it has set none of them.
    """

    topic: str
    partition: int
    offsets: list[int]
    timestamps: list[int]
    values: list[bytes | None]
    timestamp_types: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True)
class DecodedBlock:
    """A RawBlock after decoding: every record is either in `payments` or in `rejected`.

    payments: columns of the payment tables without `ingest_time`; in offset order. payload_index:
    for each row of `payments` its index in the RawBlock, to find the original bytes of a late
    record. rejected: columns of `rejected_records` without `ingest_time`.
    """

    payments: pa.RecordBatch
    payload_index: NDArray[np.int64]
    rejected: pa.RecordBatch


@dataclass(frozen=True)
class ShardBatch:
    """The rows of one source batch that belong to one shard.

    Both have the columns of a DecodedBlock, after a first column `fingerprint`.
    """

    payments: pa.RecordBatch
    rejected: pa.RecordBatch


@dataclass(frozen=True)
class ShardOutcome:
    """All that the dedup step decided about one ShardBatch.

    One element, so that no runner can separate rows from their totals. tables: table name -> rows
    ready to append (columns of the table, `ingest_time` included); empty tables are absent. totals:
    rows of `control_totals` for exactly those rows. live_ids: (expiry bucket, change of the number
    of ids there); sums over all outcomes of a shard are its state.
    """

    shard: int
    tables: dict[str, pa.RecordBatch]
    totals: pa.RecordBatch
    live_ids: list[tuple[int, int]]
