"""Ids for tests that need to know their shard."""

from __future__ import annotations

from itertools import count

import pyarrow as pa

from transforms.model.fingerprints import fingerprints_of, shards_of


def key_of_shard(shard: int, shards: int, after: int = 0) -> str:
    """An id that belongs to this shard of so many; others for values of `after` far apart."""
    return next(
        key
        for key in map(str, count(after * 1000))
        if shards_of(fingerprints_of(pa.array([key])), shards)[0] == shard
    )
