"""Control totals computed from the tables, in DuckDB's SQL: the rule of transforms/model/totals.py
a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from transforms.destinations.duckdb.minutes import minute_start
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED
from transforms.model.totals import OUTCOME_OF_TABLE

_WINDOW: Final = f"make_timestamp({minute_start('time')}::BIGINT)"


def totals_of_rows(
    source: Callable[[str], str], amount_column: str | None, currency_column: str | None
) -> str:
    """A SELECT with the columns of `control_totals`. source: table name -> what stands for it in
    FROM.
    """
    amount = f'"{amount_column}"::DECIMAL(38,9)' if amount_column else "NULL::DECIMAL(38,9)"
    currency = f'"{currency_column}"' if currency_column else "NULL::VARCHAR"
    payments = [
        f"SELECT event_time AS time, '{OUTCOME_OF_TABLE[table]}' AS outcome, {currency} AS"
        f" currency, {amount} AS amount,"
        f" transaction_id AS hashed FROM {source(table)}"
        for table in (PAYMENTS, DUPLICATES)
    ]
    rejected = f"""SELECT COALESCE(event_time, kafka_timestamp, TIMESTAMP '1970-01-01'), '{OUTCOME_OF_TABLE[REJECTED]}', NULL, NULL,
        COALESCE(transaction_id, concat(kafka_topic, ':', kafka_partition, ':', kafka_offset)) FROM {source(REJECTED)}"""
    return f"""SELECT {_WINDOW} AS window_start, outcome, currency, COUNT(*)::BIGINT AS records, SUM(amount) AS amount,
        (SUM(('0x' || left(sha256(hashed), 15))::UBIGINT) % (1::HUGEINT << 60))::BIGINT AS checksum
        FROM ({" UNION ALL ".join([*payments, rejected])}) GROUP BY ALL"""
