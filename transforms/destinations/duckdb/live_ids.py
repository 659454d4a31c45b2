"""The cold start's query in DuckDB: ids with a row in `payment_transactions`.

Their latest event time is taken over it and `duplicate_transactions`. A duplicate or a rejected row
alone makes no id known: its payment may not be visible yet.

The text is DuckDB's own. Ids whose payment is in sight, nearly all, need no other row. Only those
of which nothing but a later duplicate is in sight are looked up in the payments before.
"""

from __future__ import annotations

from typing import Final

from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.duckdb.minutes import bucket
from transforms.destinations.sql.hashing import fingerprint
from transforms.model.tables import DUPLICATES, PAYMENTS

DIGEST: Final = DUCKDB.digest("transaction_id")

_OLDEST: Final = DUCKDB.moment(DUCKDB.parameter("oldest"))


def live_ids(condition: str) -> str:
    """The query: `fingerprint` and `bucket`; parameter `oldest`, in microseconds.

    condition: which of the ids are wanted, by their DIGEST.
    """
    seen = " UNION ALL ".join(
        f"SELECT transaction_id, event_time, {table == PAYMENTS} AS is_payment FROM {table}"
        f" WHERE event_time >= {_OLDEST}"
        for table in (PAYMENTS, DUPLICATES)
    )
    answer = f"{fingerprint(DUCKDB, DIGEST)} AS fingerprint, {bucket('event_time')} AS bucket"
    return f"""
WITH recent AS (
    SELECT transaction_id, max(event_time) AS event_time, bool_or(is_payment) AS paid
    FROM ({seen}) GROUP BY transaction_id
), unpaid AS MATERIALIZED (
    SELECT transaction_id, event_time FROM recent WHERE NOT paid
)
SELECT {answer} FROM recent WHERE paid AND {condition}
UNION ALL
SELECT {answer} FROM unpaid WHERE {condition} AND transaction_id IN (
    SELECT transaction_id FROM {PAYMENTS} WHERE event_time < {_OLDEST}
)
"""
