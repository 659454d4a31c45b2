"""Control totals computed from the tables, in GoogleSQL: the rule of transforms/model/totals.py
once more.

Sums are BIGNUMERIC, 76 digits: a sum of 60-bit numbers leaves INT64 after eight rows, and amounts
that somebody has altered may leave NUMERIC
(https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types). A check
must say so, not fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from transforms.destinations.bigquery.sql import minute_of
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED
from transforms.model.totals import OUTCOME_OF_TABLE

_MODULUS: Final = f"CAST({1 << 60} AS BIGNUMERIC)"


def totals_of_rows(
    source: Callable[[str], str], amount_column: str | None, currency_column: str | None
) -> str:
    """A SELECT with the columns of `control_totals`; `amount` is BIGNUMERIC.

    source: table name -> what follows FROM, where the table has the alias r.
    """
    amount = (
        f"CAST(r.`{amount_column}` AS BIGNUMERIC)" if amount_column else "CAST(NULL AS BIGNUMERIC)"
    )
    currency = f"r.`{currency_column}`" if currency_column else "CAST(NULL AS STRING)"
    payments = [
        f"SELECT r.event_time AS moment, '{OUTCOME_OF_TABLE[table]}' AS outcome, {currency} AS"
        f" currency, {amount} AS amount,"
        f" r.transaction_id AS hashed FROM {source(table)}"
        for table in (PAYMENTS, DUPLICATES)
    ]
    rejected = f"""SELECT COALESCE(r.event_time, r.kafka_timestamp, TIMESTAMP_MICROS(0)), '{OUTCOME_OF_TABLE[REJECTED]}', CAST(NULL AS STRING),
        CAST(NULL AS BIGNUMERIC), COALESCE(r.transaction_id,
            CONCAT(r.kafka_topic, ':', CAST(r.kafka_partition AS STRING), ':', CAST(r.kafka_offset AS STRING)))
        FROM {source(REJECTED)}"""
    return f"""SELECT {minute_of("moment")} AS window_start, outcome, currency, COUNT(*) AS records, SUM(amount) AS amount,
    {checksum(_FIRST_60_BITS)} AS checksum
FROM ({" UNION ALL ".join([*payments, rejected])}) GROUP BY window_start, outcome, currency"""


_FIRST_60_BITS: Final = "CAST(CONCAT('0x', SUBSTR(TO_HEX(SHA256(hashed)), 1, 15)) AS INT64)"


def checksum(number: str) -> str:
    """An aggregate: the sum modulo 2^60 of an INT64 expression."""
    return f"CAST(MOD(SUM(CAST({number} AS BIGNUMERIC)), {_MODULUS}) AS INT64)"
