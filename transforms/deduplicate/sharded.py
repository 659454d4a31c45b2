"""DeduplicateTransactions, layout `sharded`: state per hash range of ids, as packed fingerprints.

The same rule as `deduplicate_per_key.py`, the executable specification; a property test compares
both with a brute-force oracle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.coders import BytesCoder
from apache_beam.metrics import Metrics
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import (
    BagStateSpec,
    ReadModifyWriteStateSpec,
    TimerSpec,
    on_timer,
)
from apache_beam.utils.timestamp import Timestamp

from transforms.deduplicate.backstop import reject_behind_expiry
from transforms.deduplicate.fingerprint_index import FingerprintIndex
from transforms.deduplicate.known_ids import load_known_ids
from transforms.deduplicate.outcome import outcome_of
from transforms.deduplicate.process_memory import POOL, fresh_token
from transforms.deduplicate.rule import group_copies
from transforms.deduplicate.settings import DedupSettings, timer_timestamp
from transforms.deduplicate.shard_state import (
    SLOTS,
    ShardHead,
    build_index,
    decode_head,
    encode_groups,
    encode_head,
    new_head,
)
from transforms.model.buckets import BUCKET_US, event_times_us, highest_expired_bucket
from transforms.model.elements import ShardBatch, ShardOutcome
from transforms.model.fingerprints import batch_fingerprints

_SLOT_SPECS = [BagStateSpec(f"ids_{slot:02}", BytesCoder()) for slot in range(SLOTS)]


def _slot(slot: int) -> Any:
    return beam.DoFn.StateParam(_SLOT_SPECS[slot])


class DeduplicateSharded(beam.DoFn):
    """(shard, ShardBatch) -> ShardOutcome. A failed bundle may be retried, here or in another
    process, from the state before it.
    """

    HEAD = ReadModifyWriteStateSpec("head", BytesCoder())
    EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)

    def __init__(self, settings: DedupSettings) -> None:
        self._settings = settings
        self._behind_expiry = Metrics.counter("deduplicate", "late_behind_expiry")

    def start_bundle(self) -> None:
        # What is still here belongs to a bundle that failed.
        self._open: dict[int, tuple[bytes, FingerprintIndex]] = {}

    def process(
        self,
        element: tuple[int, ShardBatch],
        cell: Any = beam.DoFn.StateParam(HEAD),
        expiry: Any = beam.DoFn.TimerParam(EXPIRY),
        s0: Any = _slot(0),
        s1: Any = _slot(1),
        s2: Any = _slot(2),
        s3: Any = _slot(3),
        s4: Any = _slot(4),
        s5: Any = _slot(5),
        s6: Any = _slot(6),
        s7: Any = _slot(7),
        s8: Any = _slot(8),
        s9: Any = _slot(9),
        s10: Any = _slot(10),
        s11: Any = _slot(11),
        s12: Any = _slot(12),
        s13: Any = _slot(13),
        s14: Any = _slot(14),
        s15: Any = _slot(15),
    ) -> Iterator[ShardOutcome]:
        shard, batch = element
        slots = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)
        before = cell.read()
        if before:
            head = decode_head(before)
            index = self._index(shard, head, slots)
        else:
            head, index = self._cold_start(shard, slots)
        batch = self._reject_behind_expiry(batch, head)

        event_times = event_times_us(batch.payments)
        buckets = (event_times // BUCKET_US).astype(np.int32)
        fingerprints = batch_fingerprints(batch.payments)
        offsets = batch.payments.column("kafka_offset").to_numpy()
        copies = group_copies(fingerprints, event_times, offsets, buckets)
        verdicts = copies.judge(index.buckets_of(fingerprints[copies.first_rows()]))

        changed = verdicts.changed()
        if len(changed) or not before:
            new, new_buckets = fingerprints[verdicts.ids[changed]], verdicts.after[changed]
            for slot, blob in encode_groups(head, new, new_buckets).items():
                slots[slot].add(blob)
            index.add(new, new_buckets)
            head.change_live(verdicts.live_changes())
            self._save(shard, head, index, cell, expiry)
        yield outcome_of(
            shard, batch, verdicts.accepted, verdicts.live_changes(), self._settings.shape
        )

    @on_timer(EXPIRY)  # type: ignore[untyped-decorator]
    def expire(
        self,
        shard: int = beam.DoFn.KeyParam,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
        cell: Any = beam.DoFn.StateParam(HEAD),
        expiry: Any = beam.DoFn.TimerParam(EXPIRY),
        s0: Any = _slot(0),
        s1: Any = _slot(1),
        s2: Any = _slot(2),
        s3: Any = _slot(3),
        s4: Any = _slot(4),
        s5: Any = _slot(5),
        s6: Any = _slot(6),
        s7: Any = _slot(7),
        s8: Any = _slot(8),
        s9: Any = _slot(9),
        s10: Any = _slot(10),
        s11: Any = _slot(11),
        s12: Any = _slot(12),
        s13: Any = _slot(13),
        s14: Any = _slot(14),
        s15: Any = _slot(15),
    ) -> None:
        slots = (s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15)
        head = decode_head(cell.read())
        index = self._index(shard, head, slots)
        expired = highest_expired_bucket(timestamp.micros, self._settings.extra_retention_us)
        for slot in head.expire(expired):
            slots[slot].clear()
        index.expire(expired)
        self._save(shard, head, index, cell, expiry)

    def finish_bundle(self) -> None:
        for shard, (token, index) in self._open.items():
            POOL.put_back(self._settings.job, shard, token, index)
        self._open = {}

    def _cold_start(self, shard: int, slots: tuple[Any, ...]) -> tuple[ShardHead, FingerprintIndex]:
        head, index = new_head(self._settings.retention_us), FingerprintIndex()
        start = self._settings.cold_start
        if start is None:
            return head, index
        if start.watermark_us is not None:
            head.expired_through = highest_expired_bucket(
                start.watermark_us, start.extra_retention_us
            )
        known = load_known_ids(start).of_shard(shard, self._settings.shards)
        for slot, blob in encode_groups(head, known.fingerprints, known.buckets).items():
            slots[slot].add(blob)
        head.change_live(known.per_bucket())
        index.add(known.fingerprints, known.buckets)
        if head.expired_through is not None:
            index.expire(head.expired_through)
        return head, index

    def _index(self, shard: int, head: ShardHead, slots: tuple[Any, ...]) -> FingerprintIndex:
        token, index = self._open.get(shard, (None, None))
        if token != head.token or index is None:
            index = POOL.take(self._settings.job, shard, head.token) if head.token else None
        if index is None:
            index = build_index(
                head.expired_through, (blob for slot in slots for blob in slot.read())
            )
        self._open[shard] = (head.token, index)
        return index

    def _save(
        self, shard: int, head: ShardHead, index: FingerprintIndex, cell: Any, expiry: Any
    ) -> None:
        head.token = fresh_token()
        cell.write(encode_head(head))
        self._open[shard] = (head.token, index)
        if self._settings.expires and head.live:
            expiry.set(timer_timestamp(min(head.live), self._settings.extra_retention_us))

    def _reject_behind_expiry(self, batch: ShardBatch, head: ShardHead) -> ShardBatch:
        """The backstop: what this shard may have forgotten is late, whatever watermark its split
        judged by. Expected never to happen.
        """
        if head.expired_through is None or not batch.payments.num_rows:
            return batch
        behind = event_times_us(batch.payments) // BUCKET_US <= head.expired_through
        if not behind.any():
            return batch
        self._behind_expiry.inc(int(behind.sum()))
        return reject_behind_expiry(batch, behind)
