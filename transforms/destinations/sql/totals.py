"""Control totals computed from the tables: the rule of transforms/model/totals.py in SQL."""

from __future__ import annotations

from collections.abc import Callable

from transforms.destinations.sql.coordinates import union
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.hashing import COORDINATE_TEXT, first_digits
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED
from transforms.model.totals import CHECKSUM_MASK, OUTCOME_OF_TABLE


def checksum(dialect: Dialect, number: str) -> str:
    """Aggregate: the checksum of all rows, from each row's number."""
    return dialect.sum_modulo(number, CHECKSUM_MASK + 1)


def totals_of_rows(
    dialect: Dialect,
    source: Callable[[str], str],
    amount_column: str | None,
    currency_column: str | None,
    *,
    with_checksum: bool = True,
) -> str:
    """Query with the columns of `control_totals`; `amount` has the dialect's `sum_type`.

    source: name of a table -> what follows FROM, where the table has the alias r. The columns are
    None where the schema has none. with_checksum: else `checksum` is left out, and no id is read.
    """
    amount = f"r.{dialect.quoted(amount_column)}" if amount_column else "NULL"
    currency = f"r.{dialect.quoted(currency_column)}" if currency_column else "NULL"
    hashed = hashed_of_rejected = "NULL"
    if with_checksum:
        hashed = "r.transaction_id"
        hashed_of_rejected = f"COALESCE({hashed}, {COORDINATE_TEXT})"
    payments = [
        f"""
    SELECT r.event_time AS moment, '{OUTCOME_OF_TABLE[table]}' AS outcome,
        CAST({currency} AS STRING) AS currency, CAST({amount} AS {dialect.sum_type}) AS amount,
        {hashed} AS hashed
    FROM {source(table)}"""
        for table in (PAYMENTS, DUPLICATES)
    ]
    rejected = f"""
    SELECT COALESCE(r.event_time, r.kafka_timestamp, {dialect.moment("0")}),
        '{OUTCOME_OF_TABLE[REJECTED]}', CAST(NULL AS STRING), CAST(NULL AS {dialect.sum_type}),
        {hashed_of_rejected}
    FROM {source(REJECTED)}"""
    ids = checksum(dialect, first_digits(dialect.digest("hashed"), 15))
    last = f",\n    {ids} AS checksum" if with_checksum else ""
    return f"""
SELECT {dialect.minute("moment")} AS window_start, outcome, currency, COUNT(*) AS records,
    SUM(amount) AS amount{last}
FROM ({union([*payments, rejected])})
GROUP BY window_start, outcome, currency"""
