"""The cold start's queries in DuckDB: ids with a row in `payment_transactions`, or in the seed.

Their latest event time is taken over both and `duplicate_transactions`. A duplicate or a rejected
row alone makes no id known: its payment may not be visible yet.

The text is DuckDB's own. Ids whose payment is in sight, nearly all, need no other row. Only those
of which nothing but a later duplicate is in sight are looked up in the payments before.
"""

from __future__ import annotations

from typing import Final

from transforms.destinations.contract.seed import Seed
from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.duckdb.minutes import bucket
from transforms.destinations.sql.hashing import fingerprint
from transforms.destinations.sql.seeds import all_of_seed
from transforms.model.tables import DUPLICATES, PAYMENTS

DIGEST: Final = DUCKDB.digest("transaction_id")

_OLDEST: Final = DUCKDB.moment(DUCKDB.parameter("oldest"))
_ANSWER: Final = f"{fingerprint(DUCKDB, DIGEST)} AS fingerprint, {bucket('event_time')} AS bucket"


def live_ids(condition: str, seed: Seed | None = None) -> str:
    """The query: `fingerprint` and `bucket`; parameter `oldest`, in microseconds.

    condition: which of the ids are wanted, by their DIGEST. seed: whose ids are paid ones too.
    """
    seen = [
        f"SELECT transaction_id, event_time, {table == PAYMENTS} AS is_payment FROM {table}"
        f" WHERE event_time >= {_OLDEST}"
        for table in (PAYMENTS, DUPLICATES)
    ]
    before = [f"SELECT transaction_id FROM {PAYMENTS} WHERE event_time < {_OLDEST}"]
    if seed is not None:
        ids = f"FROM ({all_of_seed(DUCKDB, seed)}) WHERE event_time"
        seen.append(f"SELECT transaction_id, event_time, true {ids} >= {_OLDEST}")
        before.append(f"SELECT transaction_id {ids} < {_OLDEST}")
    return f"""
WITH recent AS (
    SELECT transaction_id, max(event_time) AS event_time, bool_or(is_payment) AS paid
    FROM ({" UNION ALL ".join(seen)}) GROUP BY transaction_id
), unpaid AS MATERIALIZED (
    SELECT transaction_id, event_time FROM recent WHERE NOT paid
)
SELECT {_ANSWER} FROM recent WHERE paid AND {condition}
UNION ALL
SELECT {_ANSWER} FROM unpaid WHERE {condition} AND transaction_id IN (
    {" UNION ALL ".join(before)}
)
"""


def copies_of_none(condition: str) -> str:
    """The query for `n`, the ids whose copies are in sight, and whose payment is none of ours.

    condition, parameter: as of live_ids.
    """
    return f"SELECT count(*) AS n FROM ({_copies_of_none()}) WHERE {condition}"


def copies_of_seed(condition: str, seed: Seed) -> str:
    """As live_ids, but those ids of copies_of_none that are in the seed."""
    return f"""
SELECT {_ANSWER} FROM ({_copies_of_none()}) WHERE {condition} AND transaction_id IN (
    SELECT transaction_id FROM ({all_of_seed(DUCKDB, seed)})
)
"""


def _copies_of_none() -> str:
    return f"""
    SELECT transaction_id, max(event_time) AS event_time FROM {DUPLICATES}
    WHERE event_time >= {_OLDEST} AND transaction_id NOT IN (SELECT transaction_id FROM {PAYMENTS})
    GROUP BY transaction_id"""
