"""DeduplicateTransactions, layout `sharded`: state per hash range of ids, as packed fingerprints.

The same rule as in `per_key.py`, the executable specification; a property test compares both with
a brute-force oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from transforms import metrics
from transforms.deduplicate.backstop import reject_behind_expiry
from transforms.deduplicate.fingerprint_index import FingerprintIndex
from transforms.deduplicate.known_ids import ids_of_shard
from transforms.deduplicate.outcome import outcome_of
from transforms.deduplicate.process_memory import fresh_token, indexes_of
from transforms.deduplicate.ring import with_ring
from transforms.deduplicate.rule import copies_in
from transforms.deduplicate.settings import DedupSettings, timer_timestamp
from transforms.deduplicate.shard_state import (
    ShardHead,
    decode_head,
    encode_groups,
    encode_head,
    joined_groups,
    new_head,
)
from transforms.model.buckets import highest_expired_bucket
from transforms.model.elements import ShardBatch, ShardOutcome
from transforms.model.fingerprints import batch_fingerprints


class DeduplicateSharded(beam.DoFn):
    """(shard, ShardBatch) -> ShardOutcome.

    A failed bundle may be retried from the state before it, in this process or in another one.
    """

    HEAD = ReadModifyWriteStateSpec("head", BytesCoder())
    EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)

    def __init__(self, settings: DedupSettings) -> None:
        """Raises ValueError for a cold start where ids expire: no timer would know its ids."""
        if settings.expires and settings.cold_start is not None:
            raise ValueError("a cold start goes with expires=False")
        self._settings = settings

    def start_bundle(self) -> None:
        # An index still open here belongs to a bundle that failed.
        self._open: dict[int, tuple[bytes, FingerprintIndex]] = {}
        self._behind_expiry = 0

    @with_ring
    def process(
        self,
        element: tuple[int, ShardBatch],
        cell: Any = beam.DoFn.StateParam(HEAD),
        expiry: Any = beam.DoFn.TimerParam(EXPIRY),
        ring: Any = None,
    ) -> Iterator[ShardOutcome]:
        shard, batch = element
        before = cell.read()
        if before:
            head = decode_head(before)
            index = self._index(shard, head, ring)
        else:
            head, index = new_head(self._settings.retention_us), self._begin(shard)
            start = self._settings.cold_start
            head.expired_through = start.expired_through if start else None
        batch, behind = reject_behind_expiry(batch, head.expired_through)
        self._behind_expiry += behind
        fingerprints = batch_fingerprints(batch.payments)
        copies = copies_in(batch.payments)
        verdicts = copies.judge(index.buckets_of(fingerprints[copies.first_rows()]))

        changed = verdicts.changed()
        blobs = {}
        if len(changed) or not before:
            new, new_buckets = fingerprints[verdicts.ids[changed]], verdicts.after[changed]
            blobs = encode_groups(head, new, new_buckets)
            for slot, blob in blobs.items():
                ring[slot].add(blob)
            index.add(new, new_buckets)
            head.change_live(verdicts.live_changes())
            self._save(shard, head, index, cell, expiry)
        yield outcome_of(
            shard,
            batch,
            verdicts.accepted,
            verdicts.live_changes(),
            self._settings.shape,
            b"".join(blobs.values()),
        )

    @on_timer(EXPIRY)  # type: ignore[untyped-decorator]
    @with_ring
    def expire(
        self,
        shard: int = beam.DoFn.KeyParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
        cell: Any = beam.DoFn.StateParam(HEAD),
        expiry: Any = beam.DoFn.TimerParam(EXPIRY),
        ring: Any = None,
    ) -> None:
        head = decode_head(cell.read())
        index = self._index(shard, head, ring)
        expired = highest_expired_bucket(timestamp.micros, self._settings.extra_retention_us)
        for slot in head.expire(expired):
            ring[slot].clear()
        index.expire(expired)
        self._save(shard, head, index, cell, expiry)

    def finish_bundle(self) -> None:
        indexes = indexes_of(self._settings.job)
        for shard, (token, index) in self._open.items():
            indexes.keep(shard, token, index)
        self._open = {}
        metrics.count(metrics.LATE_BEHIND_EXPIRY, self._behind_expiry)

    def _index(self, shard: int, head: ShardHead, ring: tuple[Any, ...]) -> FingerprintIndex:
        token, index = self._open.get(shard, (None, None))
        if token != head.token or index is None:
            index = indexes_of(self._settings.job).take(shard, head.token)
        if index is None:
            index = self._begin(shard)
            index.add(*joined_groups(blob for bag in ring for blob in bag.read()))
            if head.expired_through is not None:
                index.expire(head.expired_through)
        self._open[shard] = (head.token, index)
        return index

    def _begin(self, shard: int) -> FingerprintIndex:
        """The index over the ids that the shard begins with. They are not in its state: they are
        the same for every attempt of the run, and copying them would cost as much as loading them.
        """
        start = self._settings.cold_start
        if start is None:
            return FingerprintIndex()
        return ids_of_shard(start, shard, self._settings.shards)

    def _save(
        self, shard: int, head: ShardHead, index: FingerprintIndex, cell: Any, expiry: Any
    ) -> None:
        head.token = fresh_token()
        cell.write(encode_head(head))
        self._open[shard] = (head.token, index)
        if self._settings.expires and head.live:
            expiry.set(timer_timestamp(min(head.live), self._settings.extra_retention_us))
