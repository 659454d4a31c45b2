"""The encoded state of one shard: what a checkpoint holds.

`head` is one cell: token, expired_through, slot width and the number of live ids per bucket.
Fingerprints lie in a ring of bags (ring.py), several buckets to a slot, in blobs of groups `bucket
(int32) | count (uint32) | count * 10 bytes`, big-endian. A slot is cleared when all its buckets
have expired. An id whose bucket rose has an entry in both slots until the older one expires; the
highest bucket counts. Frozen by tests/unit/test_frozen_formats.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from transforms.deduplicate.fingerprint_index import FingerprintIndex
from transforms.model.buckets import BUCKET_US, expiry_of_bucket
from transforms.model.fingerprints import FINGERPRINT_BYTES, Fingerprints

SLOTS: Final = 16
"""Bags of the ring.

A slot spans 1/12 of the retention, so on average 1/24 of the state is dead: under 11 bytes per live
id.
"""

CLEARED_AGAIN: Final = 4
"""So many minutes long a slot that was cleared is cleared again by each expiry.

RocksDB removes what was cleared when it compacts, and it compacts a column family, which a slot has
for itself, when four files are new in it
(https://github.com/facebook/rocksdb/wiki/Leveled-Compaction). A checkpoint makes one if something
was written since the last one. Cleared once, the ids would stay in every checkpoint until the ring
comes to the slot again.
"""

_LIVE_SLOTS: Final = 12
GROUP: Final = struct.Struct(">iI")


class ShardHead(msgspec.Struct, array_like=True):
    """The cell `head`.

    token: see process_memory.py. expired_through: highest bucket that the shard expired or did not
    load, None before the first. slot_width: buckets per slot. live: bucket -> number of ids in it.
    """

    token: bytes
    expired_through: int | None
    slot_width: int
    live: dict[int, int]

    def change_live(self, changes: dict[int, int]) -> None:
        """Adds to the number of live ids per bucket; buckets without ids leave the head."""
        for bucket, change in changes.items():
            left = self.live.get(bucket, 0) + change
            if left:
                self.live[bucket] = left
            else:
                self.live.pop(bucket, None)

    def slot_of(self, bucket: int) -> int:
        """The slot of the ring that holds the ids of `bucket`."""
        return bucket // self.slot_width % SLOTS

    def next_expiry(self, extra_retention_us: int) -> int | None:
        """The watermark, in microseconds, at which the oldest live bucket expires; None: never."""
        return expiry_of_bucket(min(self.live), extra_retention_us) if self.live else None

    def expire(self, bucket: int) -> list[int]:
        """Raises `expired_through` to `bucket`, and returns the slots that are to be cleared.

        Removes everything at or below `bucket` from the counts. A slot is among them in the minutes
        after its end as well, see CLEARED_AGAIN; never one with a live bucket.
        """
        if self.expired_through is not None and bucket <= self.expired_through:
            return []
        first = (
            None
            if self.expired_through is None
            else (self.expired_through + 1 - CLEARED_AGAIN) // self.slot_width
        )
        last = (bucket + 1) // self.slot_width - 1
        rounds = (
            range(first, last + 1)
            if first is not None and last - first < SLOTS
            else range(last - SLOTS + 1, last + 1)
        )
        self.live = {live: count for live, count in self.live.items() if live > bucket}
        self.expired_through = bucket
        occupied = {self.slot_of(live) for live in self.live}
        return sorted({slot_round % SLOTS for slot_round in rounds} - occupied)


def new_head(retention_us: int) -> ShardHead:
    """The head of a shard without state. retention_us: dedup horizon plus extra retention."""
    return ShardHead(b"", None, max(1, -(-retention_us // BUCKET_US // _LIVE_SLOTS)), {})


def encode_head(head: ShardHead) -> bytes:
    """The content of the cell `head`, as MessagePack."""
    return msgspec.msgpack.encode(head)


def decode_head(cell: bytes) -> ShardHead:
    """The head that `encode_head` has encoded."""
    return msgspec.msgpack.decode(cell, type=ShardHead)


def encode_groups(
    head: ShardHead, fingerprints: Fingerprints, buckets: NDArray[np.int32]
) -> dict[int, bytes]:
    """Slot -> one blob with the fingerprints of its buckets. Shapes (n, 10) and (n,)."""
    blobs: dict[int, list[bytes]] = {}
    order = np.argsort(buckets, kind="stable")
    found, starts = np.unique(buckets[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    for bucket, start, end in zip(found.tolist(), starts, ends, strict=True):
        group = fingerprints[order[start:end]].tobytes()
        blobs.setdefault(head.slot_of(bucket), []).extend((GROUP.pack(bucket, end - start), group))
    return {slot: b"".join(parts) for slot, parts in blobs.items()}


def decode_groups(blob: bytes) -> Iterator[tuple[int, Fingerprints]]:
    """(bucket, its fingerprints) of one blob."""
    position = 0
    while position < len(blob):
        bucket, count = GROUP.unpack_from(blob, position)
        position += GROUP.size
        rows = np.frombuffer(blob, dtype=np.uint8, count=count * FINGERPRINT_BYTES, offset=position)
        yield bucket, rows.reshape(-1, FINGERPRINT_BYTES)
        position += count * FINGERPRINT_BYTES


def build_index(expired_through: int | None, blobs: Iterable[bytes]) -> FingerprintIndex:
    """The index over all blobs of a shard; entries at or below `expired_through` are dead."""
    index = FingerprintIndex()
    index.add(*joined_groups(blobs))
    if expired_through is not None:
        index.expire(expired_through)
    return index


def joined_groups(blobs: Iterable[bytes]) -> tuple[Fingerprints, NDArray[np.int32]]:
    """The fingerprints of all blobs and the bucket of each: shapes (n, 10) and (n,)."""
    groups = [group for blob in blobs for group in decode_groups(blob)]
    if not groups:
        return np.empty((0, FINGERPRINT_BYTES), dtype=np.uint8), np.empty(0, dtype=np.int32)
    buckets = np.repeat(
        np.array([bucket for bucket, _ in groups], dtype=np.int32),
        [len(rows) for _, rows in groups],
    )
    return np.concatenate([rows for _, rows in groups]), buckets


def packed_bytes(live: dict[int, int], shards: int) -> int:
    """Bytes of the state for so many live ids per bucket, one group per shard and bucket."""
    return sum(
        count * FINGERPRINT_BYTES + min(shards, count) * GROUP.size for count in live.values()
    )
