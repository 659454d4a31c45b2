"""The dedup rule on columns: which rows of a batch are accepted, given the ids already known.

Where the known ids are kept is the business of the layouts (sharded.py, per_key.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.deduplicate.fingerprint_index import NO_BUCKET
from transforms.model.buckets import BUCKET_US, event_times_us
from transforms.model.fingerprints import Fingerprints, batch_fingerprints, split_fingerprints


@dataclass(frozen=True)
class Verdicts:
    """What the rule says of one source batch.

    accepted: per row, whether it is the first sighting of its id; the others are duplicates. ids:
    index of one row per distinct id. before, after: the bucket of that id before and after the
    batch (NO_BUCKET: it was not known).
    """

    accepted: NDArray[np.bool_]
    ids: NDArray[np.int64]
    before: NDArray[np.int32]
    after: NDArray[np.int32]

    def changed(self) -> NDArray[np.int64]:
        """Positions in `ids` of the ids that the state must store.

        New ones, and those whose latest event time is in a later bucket than before.
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
    """One source batch, grouped by id.

    order: row indexes, sorted by id, event time, offset. starts: position of the first row of each
    id in `order`. buckets: per row the bucket of its event time.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    buckets: NDArray[np.int32]

    def first_rows(self) -> NDArray[np.int64]:
        """Per id the row that is accepted if the id is not known.

        The one with the earliest event time; of several, the one with the lowest offset.
        """
        return self.order[self.starts]

    def judge(self, before: NDArray[np.int32]) -> Verdicts:
        """The verdicts. before: per id, in the order of `first_rows`, the bucket it is known in."""
        accepted = np.zeros(len(self.order), dtype=bool)
        first_rows = self.first_rows()
        accepted[first_rows[before == NO_BUCKET]] = True
        highest = (
            np.maximum.reduceat(self.buckets[self.order], self.starts)
            if len(self.starts)
            else before
        )
        return Verdicts(accepted, first_rows, before, np.maximum(before, highest))


def copies_in(payments: pa.RecordBatch) -> Copies:
    """Groups the `payments` of one ShardBatch by id."""
    times = event_times_us(payments)
    offsets = payments.column("kafka_offset").to_numpy()
    buckets = (times // BUCKET_US).astype(np.int32)
    return group_copies(batch_fingerprints(payments), times, offsets, buckets)


def group_copies(
    fingerprints: Fingerprints,
    times_us: NDArray[np.int64],
    offsets: NDArray[np.int64],
    buckets: NDArray[np.int32],
) -> Copies:
    """Groups rows by id. All arrays have one entry per row; times are event times."""
    high, low = split_fingerprints(fingerprints)
    order = np.argsort(high, kind="stable")
    sorted_high = high[order]
    if (sorted_high[1:] == sorted_high[:-1]).any():
        order = np.lexsort((offsets, times_us, low, high))
        sorted_high = high[order]
    is_start = np.ones(len(order), dtype=bool)
    is_start[1:] = (sorted_high[1:] != sorted_high[:-1]) | (low[order][1:] != low[order][:-1])
    return Copies(order, np.flatnonzero(is_start), buckets)
