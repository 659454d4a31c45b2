"""From verdicts to rows: all that a shard decided about one source batch, as one element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.model.elements import ShardBatch, ShardOutcome
from transforms.model.fingerprints import batch_fingerprints
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED, TIMESTAMP, TOTALS_SCHEMA
from transforms.model.totals import payment_totals, rejected_totals

_NO_TOTALS: Final = pa.RecordBatch.from_pylist([], schema=TOTALS_SCHEMA)


@dataclass(frozen=True)
class RowShape:
    """Shared by all rows of a run.

    ingest_time_us: microseconds since 1970; the plan's time in a bounded run, so that a retried
    batch has the same bytes. amount_column, currency_column: as in PaymentSchema.
    """

    ingest_time_us: int
    amount_column: str | None
    currency_column: str | None


def outcome_of(
    shard: int,
    batch: ShardBatch,
    accepted: NDArray[np.bool_],
    live_ids: dict[int, int],
    shape: RowShape,
    ids: bytes | None = None,
) -> ShardOutcome:
    """The batch's rows by table, and their totals.

    accepted: one entry per row of `batch.payments`; the others are duplicates. live_ids: bucket ->
    change of the number of ids in it. ids: see ShardOutcome.
    """
    tables: dict[str, pa.RecordBatch] = {}
    totals: list[pa.RecordBatch] = []
    fingerprints = batch_fingerprints(batch.payments)
    for table, mask in ((PAYMENTS, accepted), (DUPLICATES, ~accepted)):
        if mask.any():
            rows = batch.payments if mask.all() else batch.payments.filter(pa.array(mask))
            totals.append(
                payment_totals(
                    table, rows, fingerprints[mask], shape.amount_column, shape.currency_column
                )
            )
            tables[table] = _finished(rows, shape.ingest_time_us)
    if batch.rejected.num_rows:
        totals.append(rejected_totals(batch.rejected, batch_fingerprints(batch.rejected)))
        tables[REJECTED] = _finished(batch.rejected, shape.ingest_time_us)
    changes = sorted((bucket, change) for bucket, change in live_ids.items() if change)
    # No two of them have a row of the same outcome.
    return ShardOutcome(shard, tables, pa.concat_batches([_NO_TOTALS, *totals]), changes, ids)


def _finished(rows: pa.RecordBatch, ingest_time_us: int) -> pa.RecordBatch:
    """The columns of the table: without the fingerprint, with the ingest time."""
    ingest_time = pa.repeat(pa.scalar(ingest_time_us, pa.int64()).cast(TIMESTAMP), rows.num_rows)
    schema = pa.schema([*list(rows.schema)[1:], pa.field("ingest_time", TIMESTAMP, nullable=False)])
    return pa.RecordBatch.from_arrays([*rows.columns[1:], ingest_time], schema=schema)
