"""What the steps count, under one list of names on every runner: docs/metrics.md explains each.

Counters only rise while a job lives; after a restore they begin at 0 again, and what a replay
brings a second time is counted a second time. The tables are exact, these figures are for eyes and
alerts. Beam's gauges have no labels, so a shard or partition is part of a gauge's name.
"""

from __future__ import annotations

from collections.abc import Iterable
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
"""Of each reason there is a counter `rejected.REASON` too."""

LATE_BEHIND_EXPIRY: Final = "late_behind_expiry"
BUNDLES: Final = "bundles"
RECOVERED_SHARDS: Final = "recovered_shards"
PRESENT_ROWS: Final = "present_rows"

LIVE_IDS: Final = "live_ids"
"""A gauge for each shard, `live_ids.SHARD`."""

KAFKA_LAG: Final = "kafka_lag"
"""A gauge for each partition, `kafka_lag.TOPIC:PARTITION`, in records."""

WATERMARK_MS: Final = "watermark_ms"
"""A gauge for each partition, `watermark_ms.TOPIC:PARTITION`, milliseconds since 1970."""

LATENCY: Final = "latency_ms_up_to"
"""A counter for each bound, `latency_ms_up_to.BOUND`: payments by the time from Kafka's timestamp
to the acknowledged append; `more` is the last.
"""

LATENCY_BOUNDS_MS: Final = (50, 100, 200, 300, 500, 700, 900, 1_000, 2_000, 5_000, 10_000, 30_000)

_MORE: Final = "more"
_EDGES: Final = np.array(LATENCY_BOUNDS_MS, dtype=np.int64)


def count(name: str, number: int) -> None:
    """Adds to a counter."""
    if number:
        Metrics.counter(NAMESPACE, name).inc(number)


def show(name: str, of: object, value: int) -> None:
    """Sets the gauge of one shard or partition."""
    Metrics.gauge(NAMESPACE, f"{name}.{of}").set(value)


def count_reasons(rejected: Iterable[pa.RecordBatch]) -> None:
    """Counts rejected rows by their reason."""
    for rows in rejected:
        for found in pc.value_counts(rows.column("reason")).to_pylist():
            count(f"{REJECTED}.{found['values']}", found["counts"])


def count_latencies(kafka_timestamps: Iterable[pa.Array], acknowledged_us: int) -> None:
    """Counts payments by their latency. kafka_timestamps: columns; acknowledged_us: the moment."""
    counts: NDArray[np.int64] = np.zeros(len(_EDGES) + 1, dtype=np.int64)
    for column in kafka_timestamps:
        stamped = column.drop_null().view(pa.int64()).to_numpy(zero_copy_only=False)
        taken_ms = (acknowledged_us - stamped) // 1000
        counts += np.bincount(np.searchsorted(_EDGES, taken_ms), minlength=len(counts))
    for bound, number in zip((*LATENCY_BOUNDS_MS, _MORE), counts.tolist(), strict=True):
        count(f"{LATENCY}.{bound}", number)
