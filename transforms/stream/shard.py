"""Steps 1 (d) and 2 of streaming: one shard, its state, and its verdicts on a batch.

It knows no runner. Dedup and write are one step: a verdict counts when its row is acknowledged, and
the bundle that holds it ends only then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.deduplicate.backstop import reject_behind_expiry
from transforms.deduplicate.fingerprint_index import NO_BUCKET, FingerprintIndex
from transforms.deduplicate.known_ids import ColdStart, fill_new_shard
from transforms.deduplicate.outcome import RowShape, outcome_of
from transforms.deduplicate.process_memory import fresh_token
from transforms.deduplicate.rule import copies_in, group_copies
from transforms.deduplicate.shard_state import build_index, encode_groups, new_head
from transforms.model.buckets import BUCKET_US, highest_expired_bucket
from transforms.model.elements import ShardBatch
from transforms.model.errors import GuaranteeError
from transforms.model.fingerprints import Fingerprints, batch_fingerprints
from transforms.model.partitions import by_partition
from transforms.model.tables import DUPLICATES, PAYMENTS
from transforms.model.totals import add_up
from transforms.stream.append import ShardAppends
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
    carries, like an index (deduplicate/process_memory.py).
    """

    index: FingerprintIndex
    present: PresentRows


class OpenShard:
    """A shard within one bundle: start, take_over or go_on, process and expire, finish.

    An error fails the bundle, and the cells stay as they were before it.
    """

    def __init__(
        self, shard: int, settings: StateSettings, cells: StateCells, cold_start: ColdStart | None
    ) -> None:
        self.shard = shard
        self._settings = settings
        self._cells = cells
        self._cold_start = cold_start
        encoded = cells.read_head()
        self._head = decode_stream_head(encoded, settings) if encoded is not None else None
        self._memory: ShardMemory | None = None
        self._appends: ShardAppends | None = None
        self._totals: list[pa.RecordBatch] = []
        self.late_behind_expiry = 0
        """Payments of this bundle that the backstop has rejected; expected 0, and a metric of its
        own where a runner drives this.
        """

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

    def take_over(self, recovered: Recovered) -> None:
        """1 (d): the ids of present payments become known before the first verdict.

        Present duplicates only raise the latest event time of ids that are known. A replay may
        bring the partitions in another order: a copy may come before the record whose payment is in
        the table.
        """
        if self._head is None:
            self._head = StreamHead(
                new_head(self._retention_us), self._settings, recovered.progress, recovered.streams
            )
            index = fill_new_shard(
                self._head.dedup,
                self.shard,
                self._settings.shards,
                self._cold_start,
                self._cells.add_blob,
            )
        else:
            index = build_index(self._head.dedup.expired_through, self._cells.read_blobs())
            self._head.progress, self._head.streams = recovered.progress, recovered.streams
        self._memory = ShardMemory(index, recovered.present)
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
        batch: ShardBatch,
        appends: Callable[[StreamHead], ShardAppends],
        totals: PresentTotals,
    ) -> None:
        """2: a present record keeps the verdict of its table; the others are judged and appended.

        Raises GuaranteeError for a record at or below the highest offset seen of its partition: the
        shard has dealt with it already.
        """
        head, memory = self._open()
        both = pa.concat_tables(
            [
                pa.Table.from_batches([rows.select(_COORDINATE)])
                for rows in (batch.payments, batch.rejected)
            ]
        )
        offsets = both.column("kafka_offset").to_numpy()
        self._totals += totals.of_offsets(
            (
                topic,
                partition,
                self._pass(
                    topic,
                    partition,
                    int(offsets[mine].min()),
                    int(offsets[mine].max()),
                    offsets[mine],
                ),
            )
            for topic, partition, mine in by_partition(both)
        )
        prints, bad_prints = batch_fingerprints(batch.payments), batch_fingerprints(batch.rejected)
        tables, bad_tables = (
            memory.present.tables_of(batch.payments, prints),
            memory.present.tables_of(batch.rejected, bad_prints),
        )
        if (tables != ABSENT).any() or (bad_tables != ABSENT).any():
            self._totals += totals.of(batch, tables, bad_tables)
            batch = ShardBatch(
                _where(batch.payments, tables == ABSENT),
                _where(batch.rejected, bad_tables == ABSENT),
            )
        batch, behind = reject_behind_expiry(batch, head.dedup.expired_through)
        self.late_behind_expiry += behind
        self._judge(batch, appends, totals.shape)

    def pass_gap(
        self, topic: str, partition: int, first: int, last: int, totals: PresentTotals
    ) -> NDArray[np.int64]:
        """Passes offsets at which the source found no record, and returns the present ones.

        Those were delivered before Kafka dropped them. They count with the verdict of the table,
        and are no part of the gap.
        """
        _, memory = self._open()
        found = memory.present.between(topic, partition, first - 1, last)
        self._totals += totals.of_offsets(
            [(topic, partition, self._pass(topic, partition, first, last, _NONE))]
        )
        return found

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

    def finish(self) -> tuple[bytes, ShardMemory, pa.RecordBatch | None]:
        """Waits for every append and writes the state.

        Returns its token, what the process keeps, and rows of control_totals or None.
        """
        head, memory = self._open()
        if self._appends is not None:
            head.progress.next_offsets = self._appends.settle()
        head.progress.present = memory.present.left(head.progress.offsets)
        if not any(head.progress.present.values()):
            memory = ShardMemory(memory.index, NO_ROWS)
        head.dedup.token = fresh_token()
        self._cells.write_head(encode_stream_head(head))
        return head.dedup.token, memory, add_up(self._totals) if self._totals else None

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

    def _pass(
        self, topic: str, partition: int, first: int, last: int, delivered: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Moves the highest offset seen to `last`.

        Returns the present offsets that the source went past without delivering them.
        """
        head, memory = self._open()
        seen = head.progress.offsets.setdefault(topic, {})
        before = seen.get(partition, -1)
        if first <= before or len(np.unique(delivered)) != len(delivered):
            raise GuaranteeError(
                f"shard {self.shard}: {topic}:{partition}:{first} comes although {before} was seen"
                " before. Records of a partition must reach"
                " a shard once and in order; the source and the state are not of one checkpoint."
                " Start from a complete checkpoint, or without one."
            )
        seen[partition] = last
        return np.setdiff1d(memory.present.between(topic, partition, before, last), delivered)


_NONE: Final = np.empty(0, dtype=np.int64)
_COORDINATE: Final[Sequence[str]] = ("kafka_topic", "kafka_partition", "kafka_offset")


def _where(rows: pa.RecordBatch, mask: NDArray[np.bool_]) -> pa.RecordBatch:
    return rows if mask.all() else rows.filter(pa.array(mask))
