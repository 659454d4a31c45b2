"""What workers tell the driver of a bounded run: small numbers that prove the rows, never the rows
themselves.
"""

from __future__ import annotations

import msgspec


class PartitionWritten(msgspec.Struct, frozen=True):
    """Rows of one partition that one shard wrote into one table. coordinate_hash: sum modulo 2^64,
    transforms/model/coordinates.py.
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
    """One bundle attempt's work for one shard. Of a retried bundle, or a stage evaluated twice,
    exactly one set of reports counts.
    """

    shard: int
    streams: list[StreamWritten]
    partitions: list[PartitionWritten]
    totals: bytes
    """Rows of `control_totals` as Arrow IPC."""
    live_ids: dict[int, int]
    """Expiry bucket -> change of the number of ids in it."""


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
    return msgspec.msgpack.encode(report)


def decode_report(encoded: bytes) -> Report:
    report: Report = msgspec.msgpack.decode(encoded, type=Report)
    return report
