"""Cold start: the ids that a shard without state begins with."""

from __future__ import annotations

from typing import Protocol

import pyarrow as pa


class IdSource(Protocol):
    """A destination that can list the ids with a row in `payment_transactions`."""

    def __enter__(self) -> IdSource: ...

    def __exit__(self, *error: object) -> None: ...

    def live_ids(self, watermark_us: int | None, extra_retention_us: int) -> pa.Table:
        """Columns `fingerprint` (10 bytes) and `bucket` (int64); times in microseconds. See the
        destination.
        """
