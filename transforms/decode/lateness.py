"""Decoded payments that are rejected all the same: too early, too late, or named by the user.

Judged by the record and the plan alone, so a retried bundle has the same result. The watermark is
the plan's (pipeline/run/make_plan.py); behind it is a safety net (deduplicate/backstop.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.model.buckets import event_times_us
from transforms.model.elements import DecodedBlock, RawBlock
from transforms.model.rejected import (
    FUTURE,
    LATE,
    REFUSED,
    Reason,
    original_payload,
    rejected_rows,
)


@dataclass(frozen=True)
class TimeLimits:
    """The latest event time that a record may have. Both in microseconds.

    now_us: the plan's time in a bounded run. max_future_skew_us: how far an event time may lie
    ahead of min(now, kafka_timestamp). Without this limit one wrong clock could move the watermark
    so far that all ids expire.
    """

    now_us: int
    max_future_skew_us: int


def reject_untimely(
    raw: RawBlock,
    block: DecodedBlock,
    watermark_us: int | None,
    limits: TimeLimits,
    max_record_bytes: int,
) -> DecodedBlock:
    """Moves future and late payments to `rejected`.

    Late is strictly behind the watermark; None means that nothing is late. max_record_bytes: how
    much is kept of a rejected record's value.
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
        else f"event_time is {(watermark_us or 0) - event_time[row]} us behind the watermark of its"
        " partition"
        for row in rows
    ]
    reasons = [FUTURE if future[row] else LATE for row in rows]
    return _move(raw, block, untimely, reasons, details, max_record_bytes)


def reject_refused(
    raw: RawBlock, block: DecodedBlock, offsets: NDArray[np.int64], max_record_bytes: int
) -> DecodedBlock:
    """Moves the payments at these offsets to `rejected`.

    The destination refuses their rows, and --reject_records names them. max_record_bytes: how much
    is kept of a rejected record's value.
    """
    refused = np.isin(block.payments.column("kafka_offset").to_numpy(), offsets)
    if not refused.any():
        return block
    count = int(refused.sum())
    details = ["named by --reject_records"] * count
    return _move(raw, block, refused, [REFUSED] * count, details, max_record_bytes)


def _move(
    raw: RawBlock,
    block: DecodedBlock,
    moved: NDArray[np.bool_],
    reasons: list[Reason],
    details: list[str],
    max_record_bytes: int,
) -> DecodedBlock:
    payloads = [
        original_payload(raw.values[row], max_record_bytes) for row in block.payload_index[moved]
    ]
    rows = rejected_rows(block.payments.filter(pa.array(moved)), reasons, details, payloads)
    return DecodedBlock(
        payments=block.payments.filter(pa.array(~moved)),
        payload_index=block.payload_index[~moved],
        rejected=pa.concat_batches([block.rejected, rows]),
    )


def _latest_allowed(payments: pa.RecordBatch, limits: TimeLimits) -> NDArray[np.int64]:
    kafka_time = pc.fill_null(
        payments.column("kafka_timestamp").view(pa.int64()), limits.now_us
    ).to_numpy(zero_copy_only=False)
    result: NDArray[np.int64] = np.minimum(kafka_time, limits.now_us) + limits.max_future_skew_us
    return result
