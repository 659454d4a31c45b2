"""The cold start's query in DuckDB: ids with a row in `payment_transactions`.

Their latest event time is taken over it and `duplicate_transactions`. A duplicate or a rejected row
alone makes no id known: its payment may not be visible yet.

The text is DuckDB's own: a scan is cheap here, so one query looks at the payments of all days, and
answers one row for each id.
"""

from __future__ import annotations

from typing import Final

from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.duckdb.minutes import bucket
from transforms.destinations.sql.hashing import fingerprint
from transforms.model.tables import DUPLICATES, PAYMENTS

DIGEST: Final = DUCKDB.digest("transaction_id")

_RECENT: Final = f"WHERE event_time >= {DUCKDB.moment(DUCKDB.parameter('oldest'))}"


def live_ids(condition: str) -> str:
    """The query: `fingerprint` and `bucket`; parameter `oldest`, in microseconds.

    condition: which of the ids are wanted, by their DIGEST.
    """
    return f"""
WITH recent AS (
    SELECT transaction_id, max(event_time) AS event_time FROM (
        SELECT transaction_id, event_time FROM {PAYMENTS} {_RECENT}
        UNION ALL
        SELECT transaction_id, event_time FROM {DUPLICATES} {_RECENT}
    ) GROUP BY transaction_id
)
SELECT {fingerprint(DUCKDB, DIGEST)} AS fingerprint, {bucket("event_time")} AS bucket
FROM recent WHERE transaction_id IN (SELECT transaction_id FROM {PAYMENTS}) AND {condition}
"""
