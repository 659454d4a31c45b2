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
from transforms.deduplicate.known_ids import fill_new_shard
from transforms.deduplicate.outcome import outcome_of
from transforms.deduplicate.process_memory import fresh_token, indexes_of
from transforms.deduplicate.ring import with_ring
from transforms.deduplicate.rule import copies_in
from transforms.deduplicate.settings import DedupSettings, timer_timestamp
from transforms.deduplicate.shard_state import (
    ShardHead,
    build_index,
    decode_head,
    encode_groups,
    encode_head,
    new_head,
    packed_bytes,
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
        self._settings = settings

    def start_bundle(self) -> None:
        # An index still open here belongs to a bundle that failed.
        self._open: dict[int, tuple[bytes, FingerprintIndex]] = {}
        self._live: dict[int, dict[int, int]] = {}
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
            head = new_head(self._settings.retention_us)
            index = fill_new_shard(
                head,
                shard,
                self._settings.shards,
                self._settings.cold_start,
                lambda slot, blob: ring[slot].add(blob),
            )
        batch, behind = reject_behind_expiry(batch, head.expired_through)
        self._behind_expiry += behind
        fingerprints = batch_fingerprints(batch.payments)
        copies = copies_in(batch.payments)
        verdicts = copies.judge(index.buckets_of(fingerprints[copies.first_rows()]))

        changed = verdicts.changed()
        if len(changed) or not before:
            new, new_buckets = fingerprints[verdicts.ids[changed]], verdicts.after[changed]
            for slot, blob in encode_groups(head, new, new_buckets).items():
                ring[slot].add(blob)
            index.add(new, new_buckets)
            head.change_live(verdicts.live_changes())
            self._save(shard, head, index, cell, expiry)
        yield outcome_of(
            shard, batch, verdicts.accepted, verdicts.live_changes(), self._settings.shape
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
        for shard, live in self._live.items():
            metrics.show(metrics.LIVE_IDS, shard, sum(live.values()))
            metrics.show(metrics.STATE_BYTES, shard, packed_bytes(live, shards=1))

    def _index(self, shard: int, head: ShardHead, ring: tuple[Any, ...]) -> FingerprintIndex:
        token, index = self._open.get(shard, (None, None))
        if token != head.token or index is None:
            index = indexes_of(self._settings.job).take(shard, head.token)
        if index is None:
            index = build_index(head.expired_through, (blob for bag in ring for blob in bag.read()))
        self._open[shard] = (head.token, index)
        return index

    def _save(
        self, shard: int, head: ShardHead, index: FingerprintIndex, cell: Any, expiry: Any
    ) -> None:
        head.token = fresh_token()
        cell.write(encode_head(head))
        self._open[shard] = (head.token, index)
        self._live[shard] = head.live
        if self._settings.expires and head.live:
            expiry.set(timer_timestamp(min(head.live), self._settings.extra_retention_us))
