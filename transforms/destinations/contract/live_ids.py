"""Cold start: the ids that a shard without state begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from transforms.destinations.contract.seed import Seed


@dataclass(frozen=True)
class SomeShards:
    """Hash ranges of ids: `numbers` of all `of` equal ones, see model/fingerprints.py."""

    numbers: tuple[int, ...]
    of: int


class LiveIds(Protocol):
    """The ids with a row in `payment_transactions`, or in the seed."""

    def live_ids(
        self,
        watermark_us: int | None,
        extra_retention_us: int,
        only: SomeShards | None = None,
        seed: Seed | None = None,
    ) -> pa.Table:
        """Ids that this watermark has not expired: `fingerprint` (10 bytes) and `bucket` (int64).

        watermark_us: microseconds, None for all ids; extra_retention_us: microseconds. only: the
        shards whose ids are asked for, None for all. bucket: minute of the latest event time over
        payments, duplicates and the seed, as transforms/model/buckets.py numbers them. A duplicate
        or a rejected row alone makes no id known.

        seed: None where there is none. It is asked where it may have ids that are not expired, or
        where copies are not whose payment is none of ours. Raises GuaranteeError where it must be
        asked and is not what genesis has found.
        """
