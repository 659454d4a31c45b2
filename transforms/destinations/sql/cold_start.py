"""Where a cold start begins to load, in every dialect."""

from __future__ import annotations

from transforms.model.buckets import first_live_time
from transforms.model.tables import EARLIEST_US


def oldest_event_time(watermark_us: int | None, extra_retention_us: int) -> int:
    """The earliest event time whose ids are loaded, in microseconds.

    watermark_us: microseconds, None for all ids; extra_retention_us: microseconds.
    """
    if watermark_us is None:
        return EARLIEST_US
    return max(EARLIEST_US, first_live_time(watermark_us, extra_retention_us))
