"""DeduplicateTransactions, layout `per_key`: one state cell and one timer per `transaction_id`.

The textbook form, and the executable specification of `sharded.py`. It is slow: about 400 messages
a second (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from numpy.typing import NDArray

from transforms.deduplicate.fingerprint_index import NO_BUCKET
from transforms.deduplicate.known_ids import load_known_ids
from transforms.deduplicate.outcome import outcome_of
from transforms.deduplicate.rule import copies_in
from transforms.deduplicate.settings import DedupSettings, timer_timestamp
from transforms.model.elements import ShardBatch, ShardOutcome
from transforms.model.fingerprints import Fingerprints, batch_fingerprints

NO_ID: Final = ""
"""Key of all records without a readable id; an empty id is invalid, so no payment has it."""


class SplitByKey(beam.DoFn):
    """(shard, ShardBatch) -> (transaction_id, (shard, ShardBatch)).

    The copies of one id within one source batch stay together.
    """

    def process(
        self, element: tuple[int, ShardBatch]
    ) -> Iterator[tuple[str, tuple[int, ShardBatch]]]:
        shard, batch = element
        payments, rejected = _rows_by_id(batch.payments), _rows_by_id(batch.rejected)
        for key in dict.fromkeys([*payments, *rejected]):
            part = ShardBatch(
                batch.payments.take(pa.array(payments.get(key, []), pa.int64())),
                batch.rejected.take(pa.array(rejected.get(key, []), pa.int64())),
            )
            yield key, (shard, part)


def _rows_by_id(rows: pa.RecordBatch) -> dict[str, list[int]]:
    by_id: dict[str, list[int]] = {}
    for row, key in enumerate(rows.column("transaction_id").to_pylist()):
        by_id.setdefault(key or NO_ID, []).append(row)
    return by_id


class DeduplicatePerKey(beam.DoFn):
    """(transaction_id, (shard, ShardBatch)) -> ShardOutcome."""

    BUCKET = ReadModifyWriteStateSpec("bucket", VarIntCoder())
    EXPIRY = TimerSpec("expiry", TimeDomain.WATERMARK)

    def __init__(self, settings: DedupSettings) -> None:
        self._settings = settings

    def process(
        self,
        element: tuple[str, tuple[int, ShardBatch]],
        cell: Any = beam.DoFn.StateParam(BUCKET),
        expiry: Any = beam.DoFn.TimerParam(EXPIRY),
    ) -> Iterator[ShardOutcome]:
        shard, batch = element[1]
        copies = copies_in(batch.payments)
        known = cell.read()
        ids = batch_fingerprints(batch.payments)[copies.first_rows()]
        before = self._loaded(ids) if known is None else np.full(len(ids), known, dtype=np.int32)
        verdicts = copies.judge(before)
        if len(ids):
            bucket = int(verdicts.after[0])
            cell.write(bucket)
            if self._settings.expires:
                expiry.set(timer_timestamp(bucket, self._settings.extra_retention_us))
        yield outcome_of(
            shard, batch, verdicts.accepted, verdicts.live_changes(), self._settings.shape
        )

    @on_timer(EXPIRY)  # type: ignore[untyped-decorator]
    def expire(self, cell: Any = beam.DoFn.StateParam(BUCKET)) -> None:
        cell.clear()

    def _loaded(self, ids: Fingerprints) -> NDArray[np.int32]:
        """Buckets from the cold start: an id without a cell may have a row from an earlier run.

        Nothing expires within a bounded run.
        """
        start = self._settings.cold_start
        if start is None:
            return np.full(len(ids), NO_BUCKET, dtype=np.int32)
        return load_known_ids(start).buckets_of(ids)
