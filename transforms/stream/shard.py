"""Steps 1 (d) and 2 of streaming: one shard, its state, and its verdicts on a batch.

It knows no runner. Dedup and write are one step: a verdict counts when its row is acknowledged, and
the bundle that holds it ends only then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.deduplicate.backstop import reject_behind_expiry
from transforms.deduplicate.fingerprint_index import NO_BUCKET, FingerprintIndex
from transforms.deduplicate.known_ids import ColdStart, KnownIds, fill_new_shard
from transforms.deduplicate.outcome import RowShape, outcome_of
from transforms.deduplicate.process_memory import fresh_token
from transforms.deduplicate.rule import copies_in, group_copies
from transforms.deduplicate.shard_state import build_index, encode_groups, new_head, packed_bytes
from transforms.model.buckets import BUCKET_US, highest_expired_bucket
from transforms.model.elements import GapAnswer, PassedGaps, ShardBatch, StreamBatch
from transforms.model.fingerprints import Fingerprints, batch_fingerprints
from transforms.model.tables import DUPLICATES, PAYMENTS
from transforms.model.totals import add_up
from transforms.stream.append import ShardAppends
from transforms.stream.covered_offsets import pass_ranges
from transforms.stream.present_rows import ABSENT, NO_ROWS, PresentRows
from transforms.stream.present_totals import PresentTotals
from transforms.stream.recover import Recovered, ShardStart
from transforms.stream.state import (
    StateCells,
    StateSettings,
    StreamHead,
    decode_stream_head,
    encode_stream_head,
)


@dataclass(frozen=True)
class ShardMemory:
    """What a process keeps of a shard between bundles: valid with the very state whose token it
    carries, like an index (deduplicate/process_memory.py). nonce: of the process's claim.
    """

    index: FingerprintIndex
    present: PresentRows
    nonce: str


class OpenShard:
    """A shard within one bundle: start, take_over or go_on, process and expire, finish.

    An error fails the bundle, and the cells stay as they were before it.
    """

    def __init__(self, shard: int, settings: StateSettings, cells: StateCells) -> None:
        self.shard = shard
        self._settings = settings
        self._cells = cells
        encoded = cells.read_head()
        self._head = decode_stream_head(encoded, settings) if encoded is not None else None
        self._memory: ShardMemory | None = None
        self._appends: ShardAppends | None = None
        self._totals: list[pa.RecordBatch] = []
        self._gaps: list[PassedGaps] = []
        self.late_behind_expiry = 0
        """Payments of this bundle that the backstop has rejected; expected 0."""

    @property
    def token(self) -> bytes | None:
        """The token of the state; None: there is no state yet."""
        return self._head.dedup.token if self._head else None

    def start(self) -> ShardStart:
        """What `recover` must know of the state."""
        if self._head is None:
            return ShardStart(self.shard, None, None)
        expired_through = self._head.dedup.expired_through
        return ShardStart(
            self.shard,
            self._head.progress,
            None if expired_through is None else (expired_through + 1) * BUCKET_US,
        )

    def go_on(self, memory: ShardMemory) -> None:
        """Opens the shard with the memory of this process, which wrote the state last."""
        self._memory = memory

    def take_over(
        self,
        recovered: Recovered,
        cold_start: ColdStart | None = None,
        known: KnownIds | None = None,
    ) -> None:
        """1 (d): the ids of present payments become known before the first verdict.

        Present duplicates only raise the latest event time of ids that are known. A replay may
        bring the partitions in another order: a copy may come before the record whose payment is in
        the table. cold_start, known: what a shard without state begins with; None: with nothing.
        """
        if self._head is None:
            self._head = StreamHead(
                new_head(self._retention_us),
                self._settings,
                recovered.progress,
                recovered.streams,
                {},
            )
            index = fill_new_shard(
                self._head.dedup,
                self.shard,
                self._settings.shards,
                cold_start,
                self._cells.add_blob,
                known,
            )
        else:
            index = build_index(self._head.dedup.expired_through, self._cells.read_blobs())
            self._head.progress, self._head.streams = recovered.progress, recovered.streams
        self._memory = ShardMemory(index, recovered.present, recovered.nonce)
        for table in (PAYMENTS, DUPLICATES):
            fingerprints, times = recovered.present.of_table(table)
            buckets = (times // BUCKET_US).astype(np.int32)
            if self._head.dedup.expired_through is not None:
                # Written by a process that had expired less: still a payment, so still to be known
                # while its copies are on time.
                buckets = np.maximum(buckets, np.int32(self._head.dedup.expired_through + 1))
            self._learn(fingerprints, buckets, only_known=table == DUPLICATES)

    def process(
        self,
        batch: StreamBatch,
        appends: Callable[[StreamHead], ShardAppends],
        totals: PresentTotals,
    ) -> None:
        """2: a present record keeps the verdict of its table; the others are judged and appended.

        What the shard says of the batch's gaps is in `gap_answer`. Raises GuaranteeError when the
        batch does not begin where the one before it has ended (covered_offsets.py), when a
        present coordinate comes with another id, or a topic was deleted and created again.
        """
        head, memory = self._open()
        head.require_topics(batch.covered)
        passed = pass_ranges(self.shard, batch, head.progress.offsets, memory.present)
        self._gaps += [each.answer() for each in passed if each.covered.gaps]
        # Those were delivered before Kafka dropped them: they count with the verdict of the table.
        self._totals += totals.of_offsets(
            (each.covered.topic, each.covered.partition, each.not_delivered) for each in passed
        )
        rows: ShardBatch = batch
        prints, bad_prints = batch_fingerprints(rows.payments), batch_fingerprints(rows.rejected)
        tables, bad_tables = (
            memory.present.tables_of(rows.payments, prints),
            memory.present.tables_of(rows.rejected, bad_prints),
        )
        if (tables != ABSENT).any() or (bad_tables != ABSENT).any():
            self._totals += totals.of(rows, tables, bad_tables)
            rows = ShardBatch(
                _where(rows.payments, tables == ABSENT),
                _where(rows.rejected, bad_tables == ABSENT),
            )
        rows, behind = reject_behind_expiry(rows, head.dedup.expired_through, batch.covered)
        self.late_behind_expiry += behind
        if rows.payments.num_rows or rows.rejected.num_rows:
            self._judge(rows, appends, totals.shape)

    def _judge(
        self, batch: ShardBatch, appends: Callable[[StreamHead], ShardAppends], shape: RowShape
    ) -> None:
        head, memory = self._open()
        fingerprints = batch_fingerprints(batch.payments)
        copies = copies_in(batch.payments)
        verdicts = copies.judge(memory.index.buckets_of(fingerprints[copies.first_rows()]))
        changed = verdicts.changed()
        self._add(fingerprints[verdicts.ids[changed]], verdicts.after[changed])
        head.dedup.change_live(verdicts.live_changes())
        outcome = outcome_of(self.shard, batch, verdicts.accepted, {}, shape)
        if outcome.tables:
            self._appends = self._appends or appends(head)
            self._appends.add(outcome.tables)
            self._totals.append(outcome.totals)

    def expire(self, watermark_us: int) -> None:
        """Forgets the ids that have expired at this watermark, in microseconds."""
        head, memory = self._open()
        expired = highest_expired_bucket(watermark_us, self._settings.extra_retention_us)
        for slot in head.dedup.expire(expired):
            self._cells.clear_slot(slot)
        memory.index.expire(expired)

    def send_rest(self) -> None:
        """Sends the last appends, and waits for none, so that other shards can send theirs."""
        if self._appends is not None:
            self._appends.send_rest()

    def send_duplicates(self) -> None:
        """Sends the appends that wait for those of send_rest, and waits for no others."""
        if self._appends is not None:
            self._appends.send_duplicates()

    def finish(self) -> tuple[bytes, ShardMemory, pa.RecordBatch | None]:
        """Waits for every append and writes the state.

        Returns its token, what the process keeps, and rows of control_totals or None.
        """
        head, memory = self._open()
        if self._appends is not None:
            head.progress.next_offsets = self._appends.settle()
        head.progress.present = memory.present.left(head.progress.offsets)
        if not any(head.progress.present.values()):
            memory = ShardMemory(memory.index, NO_ROWS, memory.nonce)
        head.dedup.token = fresh_token()
        self._cells.write_head(encode_stream_head(head))
        totals = add_up(self._totals) if len(self._totals) > 1 else next(iter(self._totals), None)
        return head.dedup.token, memory, totals

    @property
    def gap_answer(self) -> GapAnswer | None:
        """What the shard says of the gaps of this bundle; None: there were none."""
        return GapAnswer(self.shard, self._gaps) if self._gaps else None

    @property
    def nonce(self) -> str:
        """Of this process's claim of the shard; "" before the shard is open."""
        return self._memory.nonce if self._memory is not None else ""

    @property
    def live_ids(self) -> int:
        """How many ids the state holds."""
        return sum(self._open()[0].dedup.live.values())

    @property
    def state_bytes(self) -> int:
        """What the live ids take in the state. What has expired in a slot that still has live ids,
        on average 1/24, is not in it.
        """
        return packed_bytes(self._open()[0].dedup.live, shards=1)

    def next_expiry(self) -> int | None:
        """The watermark, in microseconds, at which the oldest ids expire; None: there are none."""
        return self._open()[0].dedup.next_expiry(self._settings.extra_retention_us)

    @property
    def _retention_us(self) -> int:
        return self._settings.dedup_horizon_us + self._settings.extra_retention_us

    def _open(self) -> tuple[StreamHead, ShardMemory]:
        if self._head is None or self._memory is None:
            raise RuntimeError(f"shard {self.shard} is used before it was recovered")
        return self._head, self._memory

    def _learn(
        self, fingerprints: Fingerprints, buckets: NDArray[np.int32], *, only_known: bool
    ) -> None:
        """Adds ids from the tables, of which one may come several times."""
        if not len(fingerprints):
            return
        head, memory = self._open()
        zeros = np.zeros(len(fingerprints), dtype=np.int64)
        copies = group_copies(fingerprints, zeros, zeros, buckets)
        verdicts = copies.judge(memory.index.buckets_of(fingerprints[copies.first_rows()]))
        if only_known:
            verdicts.after[verdicts.before == NO_BUCKET] = NO_BUCKET
        changed = verdicts.changed()
        self._add(fingerprints[verdicts.ids[changed]], verdicts.after[changed])
        head.dedup.change_live(verdicts.live_changes())

    def _add(self, fingerprints: Fingerprints, buckets: NDArray[np.int32]) -> None:
        if len(fingerprints):
            head, memory = self._open()
            for slot, blob in encode_groups(head.dedup, fingerprints, buckets).items():
                self._cells.add_blob(slot, blob)
            memory.index.add(fingerprints, buckets)


def _where(rows: pa.RecordBatch, mask: NDArray[np.bool_]) -> pa.RecordBatch:
    return rows if mask.all() else rows.filter(pa.array(mask))
