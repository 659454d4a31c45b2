"""The cold start's query: ids with a row in `payment_transactions`, by their latest event time over
it and `duplicate_transactions`.

A duplicate or a rejected row alone makes no id known: its payment may not be visible yet.
"""

from __future__ import annotations

from typing import Any, Final

from transforms.destinations.duckdb.minutes import bucket
from transforms.model.buckets import first_live_time
from transforms.model.tables import DUPLICATES, PAYMENTS

LIVE_IDS: Final = f"""
WITH recent AS (
    SELECT transaction_id, max(event_time) AS event_time FROM (
        SELECT transaction_id, event_time FROM {PAYMENTS} WHERE epoch_us(event_time) >= $oldest
        UNION ALL
        SELECT transaction_id, event_time FROM {DUPLICATES} WHERE epoch_us(event_time) >= $oldest
    ) GROUP BY transaction_id
)
SELECT unhex(left(sha256(transaction_id), 20)) AS fingerprint, {bucket("event_time")} AS bucket
FROM recent WHERE transaction_id IN (SELECT transaction_id FROM {PAYMENTS})
"""

_EVERYTHING: Final = -(1 << 62)


def live_ids_parameters(watermark_us: int | None, extra_retention_us: int) -> dict[str, Any]:
    return {
        "oldest": _EVERYTHING
        if watermark_us is None
        else first_live_time(watermark_us, extra_retention_us)
    }
