"""Beam coders of the elements, for runners that send them from one step to the next.

Rows are encoded as Arrow IPC, so the same columns have the same bytes in every process.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

import apache_beam as beam
import msgspec
import pyarrow as pa
from apache_beam.coders import Coder

from transforms.model.elements import (
    Covered,
    GapAnswer,
    RawBlock,
    ShardBatch,
    ShardOutcome,
    StreamBatch,
)
from transforms.model.fingerprints import NO_REJECTED

_LENGTH: Final = struct.Struct(">I")

_LZ4: Final = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
"""Half of the bytes. A batch is copied a dozen times on its way through gRPC and Flink or Spark,
which costs more CPU than to compress it. With DirectRunner it makes no difference that was seen.
"""


_ONE_THREAD: Final = pa.ipc.IpcReadOptions(use_threads=False)
"""Else each column is decompressed in a thread of its own: five times the CPU for a few rows."""


def encode_rows(rows: pa.RecordBatch, options: pa.ipc.IpcWriteOptions | None = None) -> bytes:
    """Arrow IPC stream with the schema and one batch."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_batch(rows)
    return bytes(sink.getvalue())


def decode_rows(encoded: bytes) -> pa.RecordBatch:
    """The batch that `encode_rows` has encoded."""
    with pa.ipc.open_stream(encoded, options=_ONE_THREAD) as reader:
        return reader.read_next_batch()


def _encode_rejected(rows: pa.RecordBatch) -> bytes:
    """Most batches have none: their schema alone would take as long as the few rows beside them."""
    return encode_rows(rows, _LZ4) if rows.num_rows else b""


def _decode_rejected(encoded: bytes) -> pa.RecordBatch:
    return decode_rows(encoded) if encoded else NO_REJECTED


def _join(parts: Iterable[bytes]) -> bytes:
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def _split(encoded: bytes) -> list[bytes]:
    parts, position = [], 0
    while position < len(encoded):
        (length,) = _LENGTH.unpack_from(encoded, position)
        position += _LENGTH.size
        parts.append(encoded[position : position + length])
        position += length
    return parts


class RawBlockCoder(Coder):
    """MessagePack. While reading and decoding are fused, runners ask for nothing but the size."""

    def encode(self, value: RawBlock) -> bytes:
        return msgspec.msgpack.encode(value)

    def decode(self, encoded: bytes) -> RawBlock:
        return msgspec.msgpack.decode(encoded, type=RawBlock)

    def estimate_size(self, value: RawBlock) -> int:
        """The bytes of the values, in place of a trial encoding: see ShardBatchCoder."""
        return value.value_bytes()

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type:
        return RawBlock


class ShardBatchCoder(Coder):
    """Not meant for keys."""

    def encode(self, value: ShardBatch) -> bytes:
        return _join([encode_rows(value.payments, _LZ4), _encode_rejected(value.rejected)])

    def decode(self, encoded: bytes) -> ShardBatch:
        payments, rejected = _split(encoded)
        return ShardBatch(decode_rows(payments), _decode_rejected(rejected))

    def estimate_size(self, value: ShardBatch) -> int:
        """The bytes of the columns in memory, in place of a trial encoding.

        Runners ask for samples; encoding them would cost more than the step itself.
        """
        return int(value.payments.nbytes + value.rejected.nbytes)

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type:
        return ShardBatch


class StreamBatchCoder(Coder):
    """As ShardBatchCoder, with the covered offsets as MessagePack before the rows."""

    def encode(self, value: StreamBatch) -> bytes:
        covered = msgspec.msgpack.encode(value.covered)
        payments, rejected = encode_rows(value.payments, _LZ4), _encode_rejected(value.rejected)
        return _join([covered, payments, rejected])

    def decode(self, encoded: bytes) -> StreamBatch:
        covered, payments, rejected = _split(encoded)
        return StreamBatch(
            decode_rows(payments),
            _decode_rejected(rejected),
            msgspec.msgpack.decode(covered, type=list[Covered]),
        )

    def estimate_size(self, value: StreamBatch) -> int:
        """The bytes of the columns in memory: see ShardBatchCoder."""
        return int(value.payments.nbytes + value.rejected.nbytes)

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type:
        return StreamBatch


class GapAnswerCoder(Coder):
    """MessagePack."""

    def encode(self, value: GapAnswer) -> bytes:
        return msgspec.msgpack.encode(value)

    def decode(self, encoded: bytes) -> GapAnswer:
        return msgspec.msgpack.decode(encoded, type=GapAnswer)

    def is_deterministic(self) -> bool:
        return True

    def to_type_hint(self) -> type:
        return GapAnswer


class ShardOutcomeCoder(Coder):
    """As ShardBatchCoder, for the output of the dedup step."""

    def encode(self, value: ShardOutcome) -> bytes:
        head = msgspec.msgpack.encode((value.shard, list(value.tables), value.live_ids, value.ids))
        return _join(
            [
                head,
                encode_rows(value.totals),
                *(encode_rows(rows) for rows in value.tables.values()),
            ]
        )

    def decode(self, encoded: bytes) -> ShardOutcome:
        head, totals, *tables = _split(encoded)
        shard, names, live_ids, ids = msgspec.msgpack.decode(
            head, type=tuple[int, list[str], list[tuple[int, int]], bytes | None]
        )
        rows = [decode_rows(table) for table in tables]
        return ShardOutcome(
            shard, dict(zip(names, rows, strict=True)), decode_rows(totals), live_ids, ids
        )

    def estimate_size(self, value: ShardOutcome) -> int:
        return int(value.totals.nbytes + sum(rows.nbytes for rows in value.tables.values()))

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type:
        return ShardOutcome


beam.coders.registry.register_coder(RawBlock, RawBlockCoder)
beam.coders.registry.register_coder(ShardBatch, ShardBatchCoder)
beam.coders.registry.register_coder(StreamBatch, StreamBatchCoder)
beam.coders.registry.register_coder(GapAnswer, GapAnswerCoder)
beam.coders.registry.register_coder(ShardOutcome, ShardOutcomeCoder)
