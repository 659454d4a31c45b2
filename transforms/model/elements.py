"""The elements of the PCollections between the steps: columns, never single records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
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
    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    timestamp_types: bytearray = field(default_factory=bytearray)

    def extend(self, after: RawBlock) -> None:
        """Appends the records of a block that comes behind this one."""
        self.offsets.extend(after.offsets)
        self.timestamps.extend(after.timestamps)
        self.values.extend(after.values)
        self.timestamp_types.extend(after.timestamp_types)

    def value_bytes(self) -> int:
        """Bytes of all values."""
        return sum(map(len, filter(None, self.values)))


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


class EmptyOffsets(NamedTuple):
    """Offsets `first` to `last`, inclusive, that hold no record. cause: as in `offset_gaps`."""

    first: int
    last: int
    cause: str


class Covered(msgspec.Struct, frozen=True, array_like=True):
    """Offsets `first` to `last`, inclusive, of one partition that the source has read.

    topic_id: Kafka's own id of the topic, None where the broker has none. gaps: those of the
    offsets that hold no record, in rising order. payloads: offset -> bytes of the message, of each
    payment of the shard that the shard may have to reject: its event time may lie behind what the
    shard has expired. That is so for a partition that held no watermark back when the others went
    past, one found while the job runs for instance. A payment that is on time by a watermark that
    its own partition held all along needs no bytes.
    """

    topic: str
    topic_id: str | None
    partition: int
    first: int
    last: int
    gaps: list[EmptyOffsets] = msgspec.field(default_factory=list)
    payloads: dict[int, bytes] = msgspec.field(default_factory=dict)

    def joined(self, after: Covered) -> Covered | None:
        """This range and the next one of its partition as one; None when they are not neighbours.

        A gap that goes on behind the border is still two.
        """
        ours = (self.topic, self.topic_id, self.partition, self.last + 1)
        if ours != (after.topic, after.topic_id, after.partition, after.first):
            return None
        return Covered(
            self.topic,
            self.topic_id,
            self.partition,
            self.first,
            after.last,
            [*self.gaps, *after.gaps],
            {**self.payloads, **after.payloads},
        )


@dataclass(frozen=True)
class StreamBatch(ShardBatch):
    """In streaming: the rows of one shard, and the offsets among which they were found.

    Each read of a partition goes to every shard, to those without a row in it too. So the next
    range of a partition begins where the one before it has ended, and a shard knows of every offset
    whether it has passed it.
    """

    covered: list[Covered]


def merge(batches: Sequence[StreamBatch]) -> StreamBatch:
    """The batches of one shard in one bundle, in the order in which they came, as one.

    At least one batch. Rows keep their order; neighbouring ranges of a partition are joined.
    """
    if len(batches) == 1:
        return batches[0]
    return StreamBatch(
        pa.concat_batches([batch.payments for batch in batches]),
        pa.concat_batches([batch.rejected for batch in batches]),
        _joined(each for batch in batches for each in batch.covered),
    )


def _joined(ranges: Iterable[Covered]) -> list[Covered]:
    latest: dict[tuple[str, int], Covered] = {}
    before: list[Covered] = []
    for each in ranges:
        partition = (each.topic, each.partition)
        known = latest.get(partition)
        both = known.joined(each) if known else None
        if known and both is None:
            # The shard refuses it: here it must only not be lost.
            before.append(known)
        latest[partition] = both or each
    return [*before, *latest.values()]


@dataclass(frozen=True)
class JudgedArrivals:
    """One read of a partition in streaming, decoded and judged.

    elements: (shard, its rows), for every shard. newest_us: highest event time of the payments that
    are neither late nor in the future, microseconds; None where there are none.
    """

    elements: Sequence[tuple[int, StreamBatch]]
    newest_us: int | None


class PassedGaps(msgspec.Struct, frozen=True, array_like=True):
    """What one shard answers to the gaps of one partition in one bundle.

    present: offsets of the gaps that hold a row of the shard all the same, which Kafka delivered
    before it dropped them; rising.
    """

    topic: str
    partition: int
    gaps: list[EmptyOffsets]
    present: list[int]


class GapAnswer(msgspec.Struct, frozen=True, array_like=True):
    """What one shard answers to the gaps of one bundle. A bundle without gaps has no answer."""

    shard: int
    passed: list[PassedGaps]


@dataclass(frozen=True)
class ShardOutcome:
    """All that the dedup step decided about one ShardBatch.

    One element, so that no runner can separate rows from their totals. tables: table name -> rows
    ready to append (columns of the table, `ingest_time` included); empty tables are absent. totals:
    rows of `control_totals` for exactly those rows. live_ids: (expiry bucket, change of the number
    of ids there); sums over all outcomes of a shard are its state. ids: the new ids and those that
    moved to a later bucket, as groups (transforms/deduplicate/shard_state.py); None from the layout
    that does not tell.
    """

    shard: int
    tables: dict[str, pa.RecordBatch]
    totals: pa.RecordBatch
    live_ids: list[tuple[int, int]]
    ids: bytes | None = None
