"""What `run --every` takes of BigQuery's quotas, and what it is billed, before it begins."""

from __future__ import annotations

from typing import Final

from pipeline.counted import counted
from pipeline.options.quantities import format_duration
from transforms.destinations.contract.destination import SmallRun
from transforms.model.errors import UsageError

_HOUR_US: Final = 3_600_000_000
_DAY_US: Final = 24 * _HOUR_US


def check_every(every_us: int, small: SmallRun, streams_per_hour: int | None) -> str:
    """What a run at each tick takes, in words. every_us: the interval, in microseconds.

    Raises UsageError where the small runs of an hour need more write streams than the destination
    creates in one.
    """
    streams = _HOUR_US * small.streams // every_us
    if streams_per_hour is not None and streams > streams_per_hour:
        enough_us = -(-_HOUR_US * small.streams // streams_per_hour)
        seconds = -(-enough_us // 1_000_000)
        raise UsageError(
            f"--every={format_duration(every_us)}: a run that finds something new creates"
            f" {counted(small.streams, 'write stream')}, so up to {streams:,} an hour, and BigQuery"
            f" allows {streams_per_hour:,}. Use --every={seconds}s or more."
        )
    limit = "" if streams_per_hour is None else f" of the {streams_per_hour:,} that are allowed"
    runs = _DAY_US // every_us
    return (
        f"if every run finds something new: {streams:,} write streams an hour{limit};"
        f" {runs * small.queries:,} queries a day, of which"
        f" {runs * small.billed_bytes / 1e9:,.0f} GB are billed at least"
    )
