"""The dedup rule on columns, apart from where the state is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from transforms.deduplicate.fingerprint_index import NO_BUCKET
from transforms.model.fingerprints import Fingerprints, split_fingerprints


@dataclass(frozen=True)
class Verdicts:
    """What the rule says of one source batch.

    accepted: per row, whether it is a first sighting; the others are duplicates. ids: index of one
    row per distinct id; before, after: that id's bucket before and after the batch (NO_BUCKET: it
    was not known).
    """

    accepted: NDArray[np.bool_]
    ids: NDArray[np.int64]
    before: NDArray[np.int32]
    after: NDArray[np.int32]

    def changed(self) -> NDArray[np.int64]:
        """Positions in `ids` of those that the state must learn: new ones, and those whose latest
        event time moved to a later bucket.
        """
        return np.flatnonzero(self.after > self.before)

    def live_changes(self) -> dict[int, int]:
        """Bucket -> change of the number of ids in it."""
        changed = self.changed()
        changes: dict[int, int] = {}
        gained, counts = np.unique(self.after[changed], return_counts=True)
        for bucket, count in zip(gained.tolist(), counts.tolist(), strict=True):
            changes[bucket] = count
        left, counts = np.unique(self.before[changed], return_counts=True)
        for bucket, count in zip(left.tolist(), counts.tolist(), strict=True):
            if bucket != NO_BUCKET:
                changes[bucket] = changes.get(bucket, 0) - count
        return changes


@dataclass(frozen=True)
class Copies:
    """One source batch grouped by id: `order` sorts the rows by id, event time, offset; `starts`
    marks the first row of each id in it.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    buckets: NDArray[np.int32]

    def first_rows(self) -> NDArray[np.int64]:
        """Per id the row that wins if the id is not known: the earliest event time, ties by offset."""
        return self.order[self.starts]

    def judge(self, before: NDArray[np.int32]) -> Verdicts:
        """`before`: per id, in the order of `first_rows`, the bucket that it is known in."""
        accepted = np.zeros(len(self.order), dtype=bool)
        first_rows = self.first_rows()
        accepted[first_rows[before == NO_BUCKET]] = True
        highest = (
            np.maximum.reduceat(self.buckets[self.order], self.starts)
            if len(self.starts)
            else before
        )
        return Verdicts(accepted, first_rows, before, np.maximum(before, highest))


def group_copies(
    fingerprints: Fingerprints,
    event_times_us: NDArray[np.int64],
    offsets: NDArray[np.int64],
    buckets: NDArray[np.int32],
) -> Copies:
    """Groups the rows of one source batch by id. All arrays have one entry per row."""
    high, low = split_fingerprints(fingerprints)
    order = np.argsort(high, kind="stable")
    sorted_high = high[order]
    if (sorted_high[1:] == sorted_high[:-1]).any():
        order = np.lexsort((offsets, event_times_us, low, high))
        sorted_high = high[order]
    is_start = np.ones(len(order), dtype=bool)
    is_start[1:] = (sorted_high[1:] != sorted_high[:-1]) | (low[order][1:] != low[order][:-1])
    return Copies(order, np.flatnonzero(is_start), buckets)
