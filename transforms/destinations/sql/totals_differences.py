"""Windows whose control totals are not what the rows of the three tables add up to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from transforms.destinations.contract.run_ledger import PREPARED
from transforms.destinations.sql.coordinates import in_range, ranges_of_runs
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.totals import checksum, totals_of_rows
from transforms.model.tables import TOTALS
from transforms.model.totals import UNOBSERVED


def totals_differences(
    dialect: Dialect,
    amount_column: str | None,
    currency_column: str | None,
    with_run_in_flight: bool,
) -> str:
    """The text that CheckQueries.totals_differences returns.

    The stored totals and the recomputed ones are put below each other and grouped: a FULL JOIN
    needs equalities in BigQuery, and a currency may be NULL. Totals of rows that were pruned add up
    to nothing.
    """
    source: Callable[[str], str] = partial(
        _every_row if with_run_in_flight else _not_in_flight, dialect
    )
    sum_type = dialect.sum_type
    return f"""
WITH recomputed AS ({totals_of_rows(dialect, source, amount_column, currency_column)}
), stored AS (
    SELECT window_start, outcome, currency, SUM(records) AS records,
        SUM(CAST(amount AS {sum_type})) AS amount, {checksum(dialect, "checksum")} AS checksum
    FROM {dialect.table(TOTALS)} WHERE outcome <> '{UNOBSERVED}'
    GROUP BY window_start, outcome, currency
    HAVING SUM(records) <> 0 OR SUM(CAST(amount AS {sum_type})) <> 0
        OR {checksum(dialect, "checksum")} <> 0
), sides AS (
    SELECT window_start, outcome, currency, records AS stored_records, amount AS stored_amount,
        checksum AS stored_checksum, CAST(NULL AS INT64) AS recomputed_records,
        CAST(NULL AS {sum_type}) AS recomputed_amount, CAST(NULL AS INT64) AS recomputed_checksum
    FROM stored
    UNION ALL
    SELECT window_start, outcome, currency, NULL, NULL, NULL, records, amount, checksum
    FROM recomputed
), compared AS (
    SELECT window_start, outcome, currency,
        MAX(stored_records) AS records_in_totals, MAX(recomputed_records) AS records_in_tables,
        MAX(stored_amount) AS amount_in_totals, MAX(recomputed_amount) AS amount_in_tables,
        MAX(stored_checksum) AS checksum_in_totals,
        MAX(recomputed_checksum) AS checksum_in_tables
    FROM sides GROUP BY window_start, outcome, currency
)
SELECT {window_text("window_start")} AS window_start, outcome, currency,
    records_in_totals, records_in_tables, amount_in_totals, amount_in_tables,
    checksum_in_totals = checksum_in_tables AS same_ids
FROM compared
WHERE records_in_totals IS DISTINCT FROM records_in_tables
    OR amount_in_totals IS DISTINCT FROM amount_in_tables
    OR checksum_in_totals IS DISTINCT FROM checksum_in_tables
ORDER BY window_start, outcome, currency NULLS LAST"""


def window_text(column: str) -> str:
    """A window's start as text, `YYYY-MM-DD HH:MM:SS`; the zone, which is UTC, is left out."""
    return f"SUBSTR(CAST({column} AS STRING), 1, 19)"


def _every_row(dialect: Dialect, table: str) -> str:
    return dialect.aliased(table, "r")


def _not_in_flight(dialect: Dialect, table: str) -> str:
    return f"""{dialect.aliased(table, "r")}
    LEFT JOIN ({ranges_of_runs(dialect, PREPARED)}) AS f
    ON {in_range("r", "f")} WHERE f.run_id IS NULL"""
