"""The safety net behind the watermark: what the state of a shard may have forgotten is late."""

from __future__ import annotations

import json

import pyarrow as pa

from transforms.model.buckets import BUCKET_US, event_times_us
from transforms.model.elements import ShardBatch
from transforms.model.rejected import LATE, rejected_rows


def reject_behind_expiry(batch: ShardBatch, expired_through: int | None) -> tuple[ShardBatch, int]:
    """Moves payments whose ids the shard may already have expired to `rejected`, as late.

    expired_through: the highest bucket that the shard has expired, None before the first. Returns
    the batch and the number of payments moved. That number is expected to be 0: ids expire by the
    minimum of all watermarks, and no partition's lateness is judged by less than that. The
    message's bytes are not carried this far, so the detail holds the decoded row.
    """
    if expired_through is None or not batch.payments.num_rows:
        return batch, 0
    behind = event_times_us(batch.payments) // BUCKET_US <= expired_through
    if not behind.any():
        return batch, 0
    moved = batch.payments.filter(pa.array(behind))
    details = [
        "behind the expired state of its shard; decoded: "
        + json.dumps(row, default=str, sort_keys=True)
        for row in moved.drop_columns(["fingerprint"]).to_pylist()
    ]
    rejected = rejected_rows(moved, [LATE] * len(details), details, [None] * len(details))
    with_prints = pa.RecordBatch.from_arrays(
        [moved.column("fingerprint"), *rejected.columns], schema=batch.rejected.schema
    )
    kept = batch.payments.filter(pa.array(~behind))
    return ShardBatch(kept, pa.concat_batches([batch.rejected, with_prints])), len(details)
