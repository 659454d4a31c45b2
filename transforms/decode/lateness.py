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
from transforms.model.elements import LOG_APPEND_TIME, DecodedBlock, RawBlock
from transforms.model.moments import moment_in_words, span_in_words
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
    ahead of it; and ahead of the moment at which the broker appended the record, where its
    timestamp is of the type LogAppendTime. A timestamp of the type CreateTime proves nothing: the
    producer has written it. Without this limit one wrong clock could move the watermark so far that
    all ids expire.
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
    now = _now(raw, block, limits.now_us)
    future = event_time > now + limits.max_future_skew_us
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
        _future_detail(int(event_time[row]), int(now[row]), limits)
        if future[row]
        else _late_detail(int(event_time[row]), watermark_us or 0)
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


def _now(raw: RawBlock, block: DecodedBlock, now_us: int) -> NDArray[np.int64]:
    """For each payment what its event time is held against: `now_us`, or the moment before it at
    which the broker appended the record.
    """
    result = np.full(block.payments.num_rows, now_us, dtype=np.int64)
    if LOG_APPEND_TIME not in raw.timestamp_types:
        return result
    appended = np.frombuffer(raw.timestamp_types, np.uint8)[block.payload_index] == LOG_APPEND_TIME
    kafka_time = pc.fill_null(
        block.payments.column("kafka_timestamp").view(pa.int64()), now_us
    ).to_numpy(zero_copy_only=False)
    result[appended] = np.minimum(kafka_time[appended], now_us)
    return result


def _future_detail(event_time_us: int, now_us: int, limits: TimeLimits) -> str:
    what = (
        "the clock of this run" if now_us == limits.now_us else "the moment when Kafka appended it"
    )
    return (
        f"event_time {moment_in_words(event_time_us)} is {span_in_words(event_time_us - now_us)}"
        f" ahead of {what}, {moment_in_words(now_us)}; --max_future_skew allows"
        f" {span_in_words(limits.max_future_skew_us)}"
    )


def _late_detail(event_time_us: int, watermark_us: int) -> str:
    return (
        f"event_time {moment_in_words(event_time_us)} is"
        f" {span_in_words(watermark_us - event_time_us)} behind the watermark of its partition,"
        f" {moment_in_words(watermark_us)}"
    )
