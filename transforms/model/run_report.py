"""What workers report to the driver of a bounded run: counts and hashes, never the rows."""

from __future__ import annotations

import msgspec

from transforms.model.rejected_counts import RejectedCount


class PartitionWritten(msgspec.Struct, frozen=True):
    """Rows of one partition that one shard wrote into one table.

    coordinate_hash: sum modulo 2^64, see transforms/model/coordinates.py.
    """

    topic: str
    partition: int
    table: str
    records: int
    coordinate_hash: int
    highest_event_time_us: int | None
    """Over rows of the two payment tables; None for rejected rows, which never move a watermark."""


class StreamWritten(msgspec.Struct, frozen=True):
    """One pending write stream and the rows that were acknowledged in it."""

    table: str
    stream: str
    rows: int


class ShardReport(msgspec.Struct, frozen=True, tag="shard"):
    """What one attempt of a bundle wrote for one shard.

    If a runner retries the bundle or evaluates its stage twice, exactly one set of reports counts.
    """

    shard: int
    streams: list[StreamWritten]
    partitions: list[PartitionWritten]
    totals: bytes
    """Rows of `control_totals` as Arrow IPC."""
    live_ids: dict[int, int]
    """Expiry bucket -> change of the number of ids in it."""
    rejected: list[RejectedCount] = []
    """What the shard has written to `rejected_records`, by cause."""
    ids: list[bytes] | None = None
    """See ShardOutcome: of each batch in turn. None where one of them does not tell."""


class ReaderReport(msgspec.Struct, frozen=True, tag="reader"):
    """What the reader delivered of one partition's range [from_offset, to_offset).

    coordinate_hash: sum modulo 2^64 over the delivered records. gaps: (first, last) offsets,
    inclusive, that hold no record.
    """

    topic: str
    partition: int
    from_offset: int
    to_offset: int
    records: int
    coordinate_hash: int
    gaps: list[tuple[int, int]]


Report = ShardReport | ReaderReport


def encode_report(report: Report) -> bytes:
    """MessagePack with the tag `shard` or `reader`. Frozen by tests/unit/test_frozen_formats.py."""
    return msgspec.msgpack.encode(report)


def decode_report(encoded: bytes) -> Report:
    """The report that `encode_report` has encoded."""
    report: Report = msgspec.msgpack.decode(encoded, type=Report)
    return report
