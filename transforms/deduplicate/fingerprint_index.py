"""The index over the fingerprints of one shard in memory: sorted runs, merged as in an LSM tree.

It holds no Python object per id: an id takes 14 bytes here (8 + 2 for the fingerprint, 4 for the
bucket) and 10 in the state that the index is built from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from transforms.model.fingerprints import (
    FINGERPRINT_BYTES,
    Fingerprints,
    shard_range,
    split_fingerprints,
)

_DEAD_SHARE: Final = 16

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
        """Makes all ids unknown whose bucket is at or below `bucket`.

        Their entries leave the memory once they are a sixteenth of a run: to copy the others each
        minute would cost as much as all ids that live.
        """
        if bucket <= self._expired:
            return
        self._expired = bucket
        self._runs = [run for run in (_without(run, bucket) for run in self._runs) if len(run)]

    def entries(self) -> tuple[Fingerprints, NDArray[np.int32]]:
        """All ids and the bucket of each, sorted: shapes (n, 10) and (n,)."""
        run = self._merged()
        alive = run.bucket > self._expired
        packed = np.empty((int(np.count_nonzero(alive)), FINGERPRINT_BYTES), dtype=np.uint8)
        packed[:, :8] = run.high[alive].astype(">u8").view(np.uint8).reshape(-1, 8)
        packed[:, 8:] = run.low[alive].astype(">u2").view(np.uint8).reshape(-1, 2)
        return packed, run.bucket[alive]

    def buckets(self) -> NDArray[np.int32]:
        """The bucket of each id, in the order of `entries`; no copy where none has expired."""
        found = self._merged().bucket
        alive = found > self._expired
        return found if alive.all() else found[alive]

    def add_sorted(
        self,
        parts: Iterable[tuple[Fingerprints, NDArray[np.int32]]],
        most: int,
        expired: int = NO_BUCKET,
    ) -> None:
        """Makes the ids of an empty index.

        Each part is sorted for itself, and goes to its place: twice the ids are never in memory.
        parts: of rising hash ranges, with several entries an id. most: no less than all entries.
        expired: see `expire`; what is at or below it takes no memory.
        """
        assert not self._runs
        self._expired = expired
        run = _Run(
            np.empty(most, dtype=np.uint64),
            np.empty(most, dtype=np.uint16),
            np.empty(most, dtype=np.int32),
        )
        filled = 0
        for fingerprints, buckets in parts:
            part = _alive(_sorted_run(*split_fingerprints(fingerprints), buckets), expired)
            place = slice(filled, filled + len(part))
            run.high[place], run.low[place] = part.high, part.low
            run.bucket[place] = part.bucket
            filled += len(part)
        if filled:
            # The memory behind it was never touched, so it was never given.
            self._runs = [_Run(run.high[:filled], run.low[:filled], run.bucket[:filled])]

    def _merged(self) -> _Run:
        if len(self._runs) == 1:
            return self._runs[0]
        whole = _joined(self._runs)
        return _sorted_run(whole.high, whole.low, whole.bucket)

    def of_shard(self, shard: int, shards: int) -> FingerprintIndex:
        """An index over the ids of one hash range, which shares its memory with this one.

        What is added to it, or expires in it, changes nothing here.
        """
        first, end = shard_range(shard, shards)
        part = FingerprintIndex()
        part._expired = self._expired
        part._runs = [some for run in self._runs if len(some := _between(run, first, end))]
        return part


def _joined(runs: Sequence[_Run]) -> _Run:
    return _Run(
        np.concatenate([np.empty(0, dtype=np.uint64), *(run.high for run in runs)]),
        np.concatenate([np.empty(0, dtype=np.uint16), *(run.low for run in runs)]),
        np.concatenate([np.empty(0, dtype=np.int32), *(run.bucket for run in runs)]),
    )


def _without(run: _Run, expired: int) -> _Run:
    alive = run.bucket > expired
    if (len(run) - np.count_nonzero(alive)) * _DEAD_SHARE < len(run):
        return run
    return _alive(run, expired)


def _alive(run: _Run, expired: int) -> _Run:
    alive = run.bucket > expired
    return _Run(run.high[alive], run.low[alive], run.bucket[alive])


def _between(run: _Run, first: int, end: int) -> _Run:
    """first, end (exclusive): of the first 16 bits of the fingerprints."""
    start = np.searchsorted(run.high, np.uint64(first << 48))
    stop = len(run) if end == 1 << 16 else np.searchsorted(run.high, np.uint64(end << 48))
    return _Run(run.high[start:stop], run.low[start:stop], run.bucket[start:stop])


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
