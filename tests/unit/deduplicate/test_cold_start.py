"""What a shard begins with: its own ids, those that have not expired, and no others."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from transforms.deduplicate.fingerprint_index import NO_BUCKET
from transforms.deduplicate.known_ids import ColdStart, KnownIds, fill_new_shard
from transforms.deduplicate.shard_state import build_index, new_head
from transforms.model.buckets import BUCKET_US
from transforms.model.fingerprints import fingerprints_of, shards_of

SHARDS = 4
IDS = fingerprints_of(pa.array([f"id {number}" for number in range(200)]))
BUCKETS = np.arange(200, dtype=np.int32) % 20
EXPIRED_THROUGH = 6


def start(watermark_us: int | None) -> ColdStart:
    source: Any = None
    return ColdStart(source, "job", watermark_us, 0)


@pytest.mark.parametrize(
    ("watermark_us", "expired_through"),
    [(None, None), ((EXPIRED_THROUGH + 1) * BUCKET_US, EXPIRED_THROUGH)],
)
@pytest.mark.parametrize("shard", range(SHARDS))
def test_index_state_and_counts_hold_the_same_ids(
    shard: int, watermark_us: int | None, expired_through: int | None
) -> None:
    head, ring = new_head(20 * BUCKET_US), defaultdict(list)
    index = fill_new_shard(
        head,
        shard,
        SHARDS,
        start(watermark_us),
        lambda slot, blob: ring[slot].append(blob),
        KnownIds(IDS, BUCKETS),
    )
    alive = (shards_of(IDS, SHARDS) == shard) & (
        (NO_BUCKET if expired_through is None else expired_through) < BUCKETS
    )
    expected = np.where(alive, BUCKETS, NO_BUCKET).tolist()
    rebuilt = build_index(head.expired_through, [blob for bag in ring.values() for blob in bag])
    assert head.expired_through == expired_through
    assert index.buckets_of(IDS).tolist() == expected
    assert rebuilt.buckets_of(IDS).tolist() == expected
    assert sum(head.live.values()) == alive.sum() > 0


def test_nothing_is_loaded_where_there_is_nothing_to_load() -> None:
    head = new_head(20 * BUCKET_US)

    def refuse(slot: int, blob: bytes) -> None:
        raise AssertionError(slot, blob)

    assert len(fill_new_shard(head, 0, SHARDS, None, refuse, None)) == 0
    assert head == new_head(20 * BUCKET_US)
