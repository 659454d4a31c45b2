"""What the steps count, under one list of names on every runner: docs/metrics.md explains each.

Counters only rise while a job lives; after a restore they begin at 0 again, and what a replay
brings a second time is counted a second time. The tables are exact, these figures are for eyes and
alerts. Beam's metrics have no labels, so a reason, shard or partition is part of the name, behind a
dot: `rejected.late`, `live_ids.3`, `kafka_lag.payments:0`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from numpy.typing import NDArray

NAMESPACE: Final = "payment_pipeline"

RECORDS_READ: Final = "records_read"
BYTES_READ: Final = "bytes_read"
ACCEPTED: Final = "accepted"
DUPLICATE: Final = "duplicate"
REJECTED: Final = "rejected"
"""All of them; beside it there is a counter for each reason, `rejected.REASON`."""

LATE_BEHIND_EXPIRY: Final = "late_behind_expiry"
BUNDLES: Final = "bundles"
RECOVERED_SHARDS: Final = "recovered_shards"
PRESENT_ROWS: Final = "present_rows"
APPENDS: Final = "appends"
APPENDED_BYTES: Final = "appended_bytes"
APPEND_RETRIES: Final = "append_retries"
LIVE_IDS: Final = "live_ids"
STATE_BYTES: Final = "state_bytes"
KAFKA_LAG: Final = "kafka_lag"
WATERMARK_MS: Final = "watermark_ms"

LATENCY: Final = "latency_ms_up_to"
"""Payments by the time from Kafka's timestamp to the acknowledged append. Each is in one counter,
that of the lowest bound which it does not exceed; MORE is behind the highest.
"""

LATENCY_SUM: Final = "latency_ms_sum"
LATENCY_BOUNDS_MS: Final[tuple[int, ...]] = (
    *(50, *range(100, 1_000, 100)),
    *(1_000, 1_500, 2_000, 5_000, 10_000, 30_000),
)
"""What readers are promised lies below a second, so every tenth of it can be told."""

MORE: Final = "more"

COUNTER: Final = "counter"
GAUGE: Final = "gauge"

REASON: Final = "reason"
SHARD: Final = "shard"
PARTITION: Final = "topic:partition"
BOUND: Final = "bound"


@dataclass(frozen=True)
class Metric:
    """One name of the list. kind: COUNTER or GAUGE. of: what stands behind the dot, or None."""

    name: str
    kind: str
    unit: str
    of: str | None = None


METRICS: Final = (
    Metric(RECORDS_READ, COUNTER, "records"),
    Metric(BYTES_READ, COUNTER, "bytes"),
    Metric(ACCEPTED, COUNTER, "records"),
    Metric(DUPLICATE, COUNTER, "records"),
    Metric(REJECTED, COUNTER, "records"),
    Metric(REJECTED, COUNTER, "records", REASON),
    Metric(LATE_BEHIND_EXPIRY, COUNTER, "records"),
    Metric(LATENCY, COUNTER, "payments", BOUND),
    Metric(LATENCY_SUM, COUNTER, "milliseconds"),
    Metric(APPENDS, COUNTER, "appends"),
    Metric(APPENDED_BYTES, COUNTER, "bytes"),
    Metric(APPEND_RETRIES, COUNTER, "appends"),
    Metric(BUNDLES, COUNTER, "bundles"),
    Metric(RECOVERED_SHARDS, COUNTER, "shards"),
    Metric(PRESENT_ROWS, COUNTER, "rows"),
    Metric(LIVE_IDS, GAUGE, "ids", SHARD),
    Metric(STATE_BYTES, GAUGE, "bytes", SHARD),
    Metric(KAFKA_LAG, GAUGE, "offsets", PARTITION),
    Metric(WATERMARK_MS, GAUGE, "milliseconds since 1970", PARTITION),
)
"""Every name, in the order of docs/metrics.md."""

_EDGES: Final = np.array(LATENCY_BOUNDS_MS, dtype=np.int64)


def count(name: str, number: int) -> None:
    """Adds to a counter. Outside of a bundle it does nothing."""
    if number:
        Metrics.counter(NAMESPACE, name).inc(number)


def show(name: str, of: object, value: int) -> None:
    """Sets the gauge of one shard or partition."""
    Metrics.gauge(NAMESPACE, f"{name}.{of}").set(value)


def count_reason(reason: str, number: int) -> None:
    """Counts rejected records of one reason."""
    count(f"{REJECTED}.{reason}", number)


def count_reasons(rejected: Iterable[pa.RecordBatch]) -> None:
    """Counts rejected rows by their reason."""
    for rows in rejected:
        for found in pc.value_counts(rows.column("reason")).to_pylist():
            count_reason(found["values"], found["counts"])


def count_latencies(kafka_timestamps: Iterable[pa.Array], acknowledged_us: int) -> None:
    """Counts payments by their latency. kafka_timestamps: columns; acknowledged_us: the moment."""
    counts: NDArray[np.int64] = np.zeros(len(_EDGES) + 1, dtype=np.int64)
    total_ms = 0
    for column in kafka_timestamps:
        stamped = column.drop_null().view(pa.int64()).to_numpy(zero_copy_only=False)
        # A producer's clock may be ahead of this one.
        taken_ms = np.maximum(acknowledged_us - stamped, 0) // 1000
        counts += np.bincount(np.searchsorted(_EDGES, taken_ms), minlength=len(counts))
        total_ms += int(taken_ms.sum())
    for bound, number in zip((*LATENCY_BOUNDS_MS, MORE), counts.tolist(), strict=True):
        count(f"{LATENCY}.{bound}", number)
    count(LATENCY_SUM, total_ms)
