"""What a cold start loads, in every dialect."""

from __future__ import annotations

from typing import Any

from transforms.destinations.contract.live_ids import SomeShards
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.hashing import shard_number
from transforms.model.buckets import first_live_time
from transforms.model.tables import EARLIEST_US


def oldest_event_time(watermark_us: int | None, extra_retention_us: int) -> int:
    """The earliest event time whose ids are loaded, in microseconds.

    watermark_us: microseconds, None for all ids; extra_retention_us: microseconds.
    """
    if watermark_us is None:
        return EARLIEST_US
    return max(EARLIEST_US, first_live_time(watermark_us, extra_retention_us))


def of_shards(dialect: Dialect, digest: str, only: SomeShards | None) -> tuple[str, dict[str, Any]]:
    """A condition for the shards of `only`, and the values of its parameters.

    digest: SQL of 64 hexadecimal digits. The condition is true for all rows where `only` is None.
    """
    if only is None:
        return "TRUE", {}
    condition = dialect.is_among(shard_number(dialect, digest), "wanted")
    return condition, {"shards": only.of, "wanted": list(only.numbers)}
