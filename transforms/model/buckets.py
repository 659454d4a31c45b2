"""One-minute buckets of event time: how long an id is known, the same in both layouts.

An id belongs to the bucket of the latest event time seen for it, and leaves the state when the
watermark reaches the end of that bucket plus the extra retention. A record is late when its event
time is strictly behind the watermark. So a copy with the same event time either finds its id or is
late: it is never accepted twice.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.model.tables import TIMESTAMP

BUCKET_US: Final = 60_000_000
"""Width of a bucket in microseconds: one minute, the unit of the control totals' windows."""


def expiry_of_bucket(bucket: int, extra_retention_us: int) -> int:
    """The watermark, in microseconds, at which the ids of `bucket` expire."""
    return (bucket + 1) * BUCKET_US + extra_retention_us


def highest_expired_bucket(watermark_us: int, extra_retention_us: int) -> int:
    """The highest bucket whose ids a shard may have forgotten at this watermark."""
    return (watermark_us - extra_retention_us) // BUCKET_US - 1


def first_live_time(watermark_us: int, extra_retention_us: int) -> int:
    """The earliest event time, in microseconds, whose bucket this watermark has not expired.

    A cold start loads ids from here on.
    """
    return (highest_expired_bucket(watermark_us, extra_retention_us) + 1) * BUCKET_US


def event_times_us(rows: pa.RecordBatch, column: str = "event_time") -> NDArray[np.int64]:
    """A timestamp column without nulls as microseconds."""
    result: NDArray[np.int64] = (
        rows.column(column).cast(TIMESTAMP).view(pa.int64()).to_numpy(zero_copy_only=False)
    )
    return result
