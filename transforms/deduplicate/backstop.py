"""The safety net behind the watermark: what the state of a shard may have forgotten is late."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pyarrow as pa

from transforms.model.buckets import BUCKET_US, event_times_us
from transforms.model.elements import Covered, ShardBatch
from transforms.model.rejected import LATE, rejected_rows


def reject_behind_expiry(
    batch: ShardBatch, expired_through: int | None, covered: Sequence[Covered] = ()
) -> tuple[ShardBatch, int]:
    """Moves payments whose ids the shard may already have expired to `rejected`, as late.

    expired_through: the highest bucket that the shard has expired, None before the first. covered:
    the reads that the batch comes from, with the messages' bytes of what may be moved. Returns the
    batch and the number of payments moved. In bounded runs that number is expected to be 0, and no
    bytes are carried this far: ids expire by the minimum of all watermarks, and no partition's
    lateness is judged by less than that. In streaming it is 0 as well, but for a partition that is
    found while the job runs. A payment without its bytes has the decoded row in the detail.
    """
    if expired_through is None or not batch.payments.num_rows:
        return batch, 0
    behind = event_times_us(batch.payments) // BUCKET_US <= expired_through
    if not behind.any():
        return batch, 0
    moved = batch.payments.filter(pa.array(behind))
    payloads = _payloads(moved, covered)
    details = [
        "behind the expired state of its shard"
        + (
            ""
            if payload is not None
            else f"; decoded: {json.dumps(row, default=str, sort_keys=True)}"
        )
        for payload, row in zip(
            payloads, moved.drop_columns(["fingerprint"]).to_pylist(), strict=True
        )
    ]
    rejected = rejected_rows(moved, [LATE] * len(details), details, payloads)
    with_prints = pa.RecordBatch.from_arrays(
        [moved.column("fingerprint"), *rejected.columns], schema=batch.rejected.schema
    )
    kept = batch.payments.filter(pa.array(~behind))
    return ShardBatch(kept, pa.concat_batches([batch.rejected, with_prints])), len(details)


def _payloads(rows: pa.RecordBatch, covered: Sequence[Covered]) -> list[bytes | None]:
    """The message's bytes of each row, None where the source has not sent them."""
    of_partition: dict[tuple[str, int], dict[int, bytes]] = {}
    for read in covered:
        of_partition.setdefault((read.topic, read.partition), {}).update(read.payloads)
    coordinates = zip(
        rows.column("kafka_topic").to_pylist(),
        rows.column("kafka_partition").to_pylist(),
        rows.column("kafka_offset").to_pylist(),
        strict=True,
    )
    return [
        of_partition.get((topic, partition), {}).get(offset)
        for topic, partition, offset in coordinates
    ]
