"""Ids for tests that need to know their shard."""

from __future__ import annotations

from itertools import count

import pyarrow as pa

from transforms.model.fingerprints import fingerprints_of, shards_of


def key_of_shard(shard: int, shards: int) -> str:
    """An id that belongs to this shard of so many."""
    return next(
        key
        for key in map(str, count())
        if shards_of(fingerprints_of(pa.array([key])), shards)[0] == shard
    )
