"""Late and future records: judged on the record and the plan alone, so that a retry judges alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.model.buckets import event_times_us
from transforms.model.elements import DecodedBlock, RawBlock
from transforms.model.rejected import FUTURE, LATE, REFUSED, original_payload, rejected_rows


@dataclass(frozen=True)
class TimeLimits:
    """What a record's event time is held against. All in microseconds.

    now_us: the plan's time in a bounded run. max_future_skew_us: how far an event time may lie
    ahead of min(now, kafka_timestamp); else one bad clock empties the state. max_record_bytes: how
    much of a rejected record's bytes is kept.
    """

    now_us: int
    max_future_skew_us: int
    max_record_bytes: int


def reject_untimely(
    raw: RawBlock, block: DecodedBlock, watermark_us: int | None, limits: TimeLimits
) -> DecodedBlock:
    """Moves future and late records from `payments` to `rejected`. Late is strictly behind the
    watermark; None means nothing is late.
    """
    event_time = event_times_us(block.payments)
    latest_allowed = _latest_allowed(block.payments, limits)
    future = event_time > latest_allowed
    late = (
        ~future & (event_time < watermark_us)
        if watermark_us is not None
        else np.zeros(len(event_time), dtype=bool)
    )
    untimely = future | late
    if not untimely.any():
        return block
    rows = np.flatnonzero(untimely)
    details = [
        f"event_time is {event_time[row] - latest_allowed[row]} us ahead of the latest allowed one"
        if future[row]
        else f"event_time is {(watermark_us or 0) - event_time[row]} us behind the watermark of its partition"
        for row in rows
    ]
    reasons = [FUTURE if future[row] else LATE for row in rows]
    index = np.asarray(block.payload_index)
    payloads = [
        original_payload(raw.values[position], limits.max_record_bytes) for position in index[rows]
    ]
    moved = rejected_rows(block.payments.take(pa.array(rows)), reasons, details, payloads)
    keep = ~untimely
    return DecodedBlock(
        payments=block.payments.filter(pa.array(keep)),
        payload_index=index[keep],
        rejected=pa.concat_batches([block.rejected, moved]),
    )


def reject_refused(
    raw: RawBlock, block: DecodedBlock, offsets: NDArray[np.int64], max_record_bytes: int
) -> DecodedBlock:
    """Moves the payments at these offsets to `rejected`: the destination has refused their rows,
    and the user said so.
    """
    refused = np.isin(block.payments.column("kafka_offset").to_numpy(), offsets)
    if not refused.any():
        return block
    count = int(refused.sum())
    index = np.asarray(block.payload_index)
    payloads = [
        original_payload(raw.values[position], max_record_bytes) for position in index[refused]
    ]
    details = ["named by --reject_records"] * count
    moved = rejected_rows(
        block.payments.filter(pa.array(refused)), [REFUSED] * count, details, payloads
    )
    return DecodedBlock(
        payments=block.payments.filter(pa.array(~refused)),
        payload_index=index[~refused],
        rejected=pa.concat_batches([block.rejected, moved]),
    )


def _latest_allowed(payments: pa.RecordBatch, limits: TimeLimits) -> NDArray[np.int64]:
    kafka_time = pc.fill_null(
        payments.column("kafka_timestamp").view(pa.int64()), limits.now_us
    ).to_numpy(zero_copy_only=False)
    result: NDArray[np.int64] = np.minimum(kafka_time, limits.now_us) + limits.max_future_skew_us
    return result
