"""The fingerprint of an id, and the shard that a record belongs to.

A shard is a hash range of ids. A record without a readable id belongs to the shard of its Kafka
coordinate. The shard depends on the record alone: a record that is late in one attempt and on time
in a replay comes to the same shard, which knows that it has its row already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.model.elements import Covered, DecodedBlock, ShardBatch, StreamBatch
from transforms.model.rejected import NONE_REJECTED

FINGERPRINT_BYTES: Final = 10
"""First bytes of SHA-256(UTF-8 of transaction_id).

8 bytes would drop 0.6 payments a year at 10,000/s over one hour; 10 bytes one in 100,000 years.
"""

FINGERPRINT: Final = pa.binary(FINGERPRINT_BYTES)

Fingerprints = NDArray[np.uint8]
"""Shape (n, 10): one fingerprint a row."""


def fingerprints_of(ids: pa.Array) -> Fingerprints:
    """First 10 bytes of SHA-256 of each id's UTF-8, shape (n, 10).

    ids: a string column without nulls.
    """
    digests = b"".join([sha256(value).digest() for value in ids.cast(pa.binary()).to_pylist()])
    return np.ascontiguousarray(
        np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32)[:, :FINGERPRINT_BYTES]
    )


def rejected_fingerprints(rejected: pa.RecordBatch) -> Fingerprints:
    """Fingerprints of rejected records, shape (n, 10).

    That of the id where an id could be read, else that of the text `topic:partition:offset`.
    """
    texts = [
        row["transaction_id"]
        or f"{row['kafka_topic']}:{row['kafka_partition']}:{row['kafka_offset']}"
        for row in rejected.select(
            ["transaction_id", "kafka_topic", "kafka_partition", "kafka_offset"]
        ).to_pylist()
    ]
    return fingerprints_of(pa.array(texts, pa.string()))


def shards_of(fingerprints: Fingerprints, shards: int) -> NDArray[np.int64]:
    """The hash range of each fingerprint: its first 16 bits, scaled to `shards` equal ranges."""
    first = fingerprints[:, 0].astype(np.int64) << 8 | fingerprints[:, 1]
    return first * shards >> 16


def shard_range(shard: int, shards: int) -> tuple[int, int]:
    """The hash range of a shard: first to end (exclusive) of the first 16 bits of fingerprints."""
    return -(-(shard << 16) // shards), -(-((shard + 1) << 16) // shards)


def split_by_shard(block: DecodedBlock, shards: int) -> Iterator[tuple[int, ShardBatch]]:
    """The block's rows by shard, in offset order within each; shards without a row are absent."""
    for shard, batch in _split(block, shards):
        if batch.payments.num_rows or batch.rejected.num_rows:
            yield shard, batch


def split_for_stream(
    block: DecodedBlock, covered: Covered, shards: int
) -> Iterator[tuple[int, StreamBatch]]:
    """The block's rows for every shard, with the read that they come from.

    covered: of that read, with the payloads of all shards; each shard gets those of its payments.
    """
    for shard, batch in _split(block, shards):
        offsets = batch.payments.column("kafka_offset").to_pylist() if covered.payloads else ()
        payloads = {at: covered.payloads[at] for at in offsets if at in covered.payloads}
        its_own = msgspec.structs.replace(covered, payloads=payloads)
        yield shard, StreamBatch(batch.payments, batch.rejected, [its_own])


def _split(block: DecodedBlock, shards: int) -> Iterator[tuple[int, ShardBatch]]:
    fingerprints = fingerprints_of(block.payments.column("transaction_id"))
    payments = _with_fingerprints(block.payments, fingerprints)
    payment_parts = _parts(payments, shards_of(fingerprints, shards), shards)
    rejected_parts = _rejected_parts(block.rejected, shards)
    for shard, (some_payments, some_rejected) in enumerate(
        zip(payment_parts, rejected_parts, strict=True)
    ):
        yield shard, ShardBatch(some_payments, some_rejected)


def _rejected_parts(rows: pa.RecordBatch, shards: int) -> Iterable[pa.RecordBatch]:
    if not rows.num_rows:
        return [NO_REJECTED] * shards
    fingerprints = rejected_fingerprints(rows)
    return _parts(_with_fingerprints(rows, fingerprints), shards_of(fingerprints, shards), shards)


def batch_fingerprints(rows: pa.RecordBatch) -> Fingerprints:
    """The `fingerprint` column of a ShardBatch's rows, shape (n, 10), without a copy."""
    return fingerprints_in(rows.column("fingerprint"))


def fingerprints_in(column: pa.FixedSizeBinaryArray) -> Fingerprints:
    """The values of a FINGERPRINT column without nulls, shape (n, 10), without a copy."""
    start = column.offset * FINGERPRINT_BYTES
    data = np.frombuffer(column.buffers()[1] or b"", dtype=np.uint8)
    return data[start : start + len(column) * FINGERPRINT_BYTES].reshape(-1, FINGERPRINT_BYTES)


def _with_fingerprints(rows: pa.RecordBatch, fingerprints: Fingerprints) -> pa.RecordBatch:
    column = pa.FixedSizeBinaryArray.from_buffers(
        FINGERPRINT, len(fingerprints), [None, pa.py_buffer(fingerprints.tobytes())]
    )
    fields = [pa.field("fingerprint", FINGERPRINT, nullable=False), *rows.schema]
    return pa.RecordBatch.from_arrays([column, *rows.columns], schema=pa.schema(fields))


NO_REJECTED: Final = _with_fingerprints(
    NONE_REJECTED, np.empty((0, FINGERPRINT_BYTES), dtype=np.uint8)
)
"""The rejected rows of most batches."""


def _parts(rows: pa.RecordBatch, shard: NDArray[np.int64], shards: int) -> Iterator[pa.RecordBatch]:
    order = np.argsort(shard, kind="stable")
    sorted_rows = rows.take(pa.array(order))
    bounds = np.searchsorted(shard[order], np.arange(shards + 1))
    for first, end in pairwise(bounds):
        yield sorted_rows.slice(first, end - first)


def split_fingerprints(fingerprints: Fingerprints) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
    """The first 8 and the last 2 bytes of each fingerprint as numbers.

    Big-endian, so that the order of the numbers is the order of the bytes.
    """
    packed = np.ascontiguousarray(fingerprints)
    high = packed[:, :8].copy().view(">u8").reshape(-1).astype(np.uint64)
    low = packed[:, 8:].copy().view(">u2").reshape(-1).astype(np.uint16)
    return high, low
