"""Cold start: the ids that a shard without state begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class SomeShards:
    """Hash ranges of ids: `numbers` of all `of` equal ones, see model/fingerprints.py."""

    numbers: tuple[int, ...]
    of: int


class LiveIds(Protocol):
    """The ids with a row in `payment_transactions`."""

    def live_ids(
        self, watermark_us: int | None, extra_retention_us: int, only: SomeShards | None = None
    ) -> pa.Table:
        """Ids that this watermark has not expired: `fingerprint` (10 bytes) and `bucket` (int64).

        watermark_us: microseconds, None for all ids; extra_retention_us: microseconds. only: the
        shards whose ids are asked for, None for all. bucket: minute of the latest event time over
        payments and duplicates, as transforms/model/buckets.py numbers them. A duplicate or a
        rejected row alone makes no id known.
        """
