"""The ids that a bounded run begins with, and that the next run of the process can go on with.

One index over all ids; a shard gets its part of it without a copy. It advances by what a committed
run has reported, never by what a bundle did: docs/guarantees.md, 'Ids that are remembered'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from transforms.deduplicate.fingerprint_index import NO_BUCKET, FingerprintIndex
from transforms.deduplicate.shard_state import joined_groups
from transforms.model.fingerprints import FINGERPRINT_BYTES, Fingerprints

_COUNTED_AT_ONCE: Final = 1 << 20

NO_FINGERPRINTS: Final = np.empty((0, FINGERPRINT_BYTES), dtype=np.uint8)


class RememberedIds:
    """All ids whose bucket is above `expired_through`, as of one moment of the tables.

    live: bucket -> number of ids in it. expired_through: ids at or below this bucket are not known
    here, whether they have a payment or not; None: every id is known.
    """

    def __init__(
        self,
        fingerprints: Fingerprints,
        buckets: NDArray[np.int32],
        expired_through: int | None,
    ) -> None:
        """Shapes (n, 10) and (n,): each id once, in any order."""
        self.expired_through = expired_through
        self._index = FingerprintIndex()
        self._index.add(fingerprints, buckets)
        self.live = per_bucket(buckets)

    @classmethod
    def of_ranges(
        cls,
        parts: Iterable[tuple[Fingerprints, NDArray[np.int32]]],
        most: int,
        expired_through: int | None,
    ) -> RememberedIds:
        """parts: the ids of rising hash ranges; one may come several times: its highest bucket
        counts. most: no less than there are in all, those that come again included.
        """
        ids = cls(NO_FINGERPRINTS, np.empty(0, dtype=np.int32), expired_through)
        ids._index.add_sorted(
            parts, most, NO_BUCKET if expired_through is None else expired_through
        )
        ids.live = per_bucket(ids._index.buckets())
        return ids

    def reach_back_to(self, expired_through: int | None) -> bool:
        """Whether every id above this bucket is here; None: every id at all."""
        if self.expired_through is None or expired_through is None:
            return self.expired_through is None
        return self.expired_through <= expired_through

    def forget_through(self, expired_through: int | None) -> None:
        """Forgets the ids at or below this bucket. A run that begins with the others may accept one
        of these again, so they must not come back.
        """
        if expired_through is None:
            return
        self.expired_through = expired_through
        self._index.expire(expired_through)
        self.live = {bucket: ids for bucket, ids in self.live.items() if bucket > expired_through}

    def of_shard(self, shard: int, shards: int) -> FingerprintIndex:
        """The index that a shard begins with: what it adds there changes nothing here."""
        return self._index.of_shard(shard, shards)

    def buckets_of(self, fingerprints: Fingerprints) -> NDArray[np.int32]:
        """The bucket of each fingerprint, NO_BUCKET if it is not known. Shape (n,)."""
        return self._index.buckets_of(fingerprints)

    def entries(self) -> tuple[Fingerprints, NDArray[np.int32]]:
        """All ids and the bucket of each, sorted: shapes (n, 10) and (n,)."""
        return self._index.entries()

    def advance(self, changed: Iterable[bytes], live_changes: Mapping[int, int]) -> None:
        """Adds what a run that is COMMITTED has reported.

        changed: its new ids, and those that moved to a later bucket, as groups (shard_state.py).
        live_changes: bucket -> change of the number of ids in it.
        """
        fingerprints, buckets = joined_groups(changed)
        self._index.add(fingerprints, buckets)
        self.live = changed_by(self.live, live_changes)


def changed_by(live: Mapping[int, int], changes: Mapping[int, int]) -> dict[int, int]:
    """Bucket -> number of ids in it, after the changes; without buckets that have none."""
    after = {bucket: live.get(bucket, 0) + change for bucket, change in changes.items()}
    return {bucket: ids for bucket, ids in {**live, **after}.items() if ids}


def per_bucket(buckets: NDArray[np.int32]) -> dict[int, int]:
    """Bucket -> number of ids in it. buckets: of each id, shape (n,); counted some at a time, since
    counting takes 16 bytes an id.
    """
    counts: Counter[int] = Counter()
    for start in range(0, len(buckets), _COUNTED_AT_ONCE):
        counts.update(_counted(buckets[start : start + _COUNTED_AT_ONCE]))
    return dict(counts)


def _counted(buckets: NDArray[np.int32]) -> dict[int, int]:
    first, last = int(buckets.min()), int(buckets.max())
    if last - first < len(buckets):
        counts = np.bincount(buckets - first)
        found = np.flatnonzero(counts)
        return dict(zip((found + first).tolist(), counts[found].tolist(), strict=True))
    # An event time of the year 1 would make it count a billion minutes.
    found, counts = np.unique(buckets, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))
