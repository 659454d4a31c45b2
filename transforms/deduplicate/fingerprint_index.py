"""The index over the fingerprints of one shard in memory: sorted runs, merged as in an LSM tree.

It holds no Python object per id: an id takes 14 bytes here (8 + 2 for the fingerprint, 4 for the
bucket) and 10 in the state that the index is built from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transforms.model.fingerprints import FINGERPRINT_BYTES, Fingerprints, split_fingerprints

NO_BUCKET = np.iinfo(np.int32).min
"""Bucket of an id that is not known."""


@dataclass(frozen=True)
class _Run:
    high: NDArray[np.uint64]
    low: NDArray[np.uint16]
    bucket: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.high)


class FingerprintIndex:
    """Which ids are known, and the bucket of each one's latest event time."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []
        self._expired = NO_BUCKET

    def __len__(self) -> int:
        """Number of entries.

        An id whose bucket rose may have an old entry beside the new one, until a merge.
        """
        return sum(len(run) for run in self._runs)

    def add(self, fingerprints: Fingerprints, buckets: NDArray[np.int32]) -> None:
        """Makes each id known in its bucket. Shapes (n, 10) and (n,).

        Of several buckets for one id the highest counts.
        """
        assert fingerprints.shape[1] == FINGERPRINT_BYTES
        if not len(fingerprints):
            return
        high, low = split_fingerprints(fingerprints)
        run = _sorted_run(high, low, buckets)
        while self._runs and len(self._runs[-1]) < 2 * len(run):
            last = self._runs.pop()
            run = _sorted_run(
                np.concatenate([last.high, run.high]),
                np.concatenate([last.low, run.low]),
                np.concatenate([last.bucket, run.bucket]),
            )
        self._runs.append(run)

    def buckets_of(self, fingerprints: Fingerprints) -> NDArray[np.int32]:
        """The bucket of each fingerprint; NO_BUCKET if it is not known. Shape (n,)."""
        found = np.full(len(fingerprints), NO_BUCKET, dtype=np.int32)
        if not len(fingerprints):
            return found
        high, low = split_fingerprints(fingerprints)
        for run in self._runs:
            _look_up(run, high, low, found)
        found[found <= self._expired] = NO_BUCKET
        return found

    def expire(self, bucket: int) -> None:
        """Removes all ids whose bucket is at or below `bucket`."""
        self._expired = max(self._expired, bucket)
        self._runs = [
            run for run in (_without(run, self._expired) for run in self._runs) if len(run)
        ]


def _without(run: _Run, expired: int) -> _Run:
    alive = run.bucket > expired
    return run if alive.all() else _Run(run.high[alive], run.low[alive], run.bucket[alive])


def _sorted_run(
    high: NDArray[np.uint64], low: NDArray[np.uint16], bucket: NDArray[np.int32]
) -> _Run:
    """Sorted by fingerprint, one entry an id: the one with the highest bucket."""
    order = np.argsort(high, kind="stable")
    if (high[order[1:]] == high[order[:-1]]).any():
        order = np.lexsort((bucket, low, high))
        high, low, bucket = high[order], low[order], bucket[order]
        last_of_id = np.ones(len(high), dtype=bool)
        last_of_id[:-1] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
        return _Run(high[last_of_id], low[last_of_id], bucket[last_of_id])
    return _Run(high[order], low[order], bucket[order])


def _look_up(
    run: _Run, high: NDArray[np.uint64], low: NDArray[np.uint16], found: NDArray[np.int32]
) -> None:
    position = np.searchsorted(run.high, high)
    waiting = np.arange(len(high))
    while len(waiting):
        waiting = waiting[position[waiting] < len(run)]
        at = position[waiting]
        waiting = waiting[run.high[at] == high[waiting]]
        at = position[waiting]
        same = run.low[at] == low[waiting]
        hits = waiting[same]
        found[hits] = np.maximum(found[hits], run.bucket[at[same]])
        waiting = waiting[~same]
        position[waiting] += 1
