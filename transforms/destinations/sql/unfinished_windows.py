"""Windows whose totals lack rows, or of which a job's replay would count rows again."""

from __future__ import annotations

from typing import Final

from transforms.destinations.sql.coordinates import same_partition, union
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.present_rows import BOUNDS
from transforms.destinations.sql.totals import totals_of_rows
from transforms.destinations.sql.totals_differences import window_text
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED, TOTALS
from transforms.model.totals import UNOBSERVED

LOWEST: Final = "lowest"
"""Parameter: the lowest bound of all.

A constant lets DuckDB leave out blocks of rows by their least and greatest offset.
"""


def unfinished_windows(dialect: Dialect) -> str:
    """The query for the windows, each once: `window_start` as `totals_differences` writes it.

    Rows BOUNDS, a partition's position; parameter LOWEST. It compares numbers of records, no
    amounts and no checksums: what streaming has not written to the totals is missing in their
    numbers, and hashing every id is what costs (16 of 17 seconds for 12 million rows in DuckDB).
    """

    def rows(table: str) -> str:
        return dialect.aliased(table, "r")

    def above(table: str, moment: str) -> str:
        return f"""
    SELECT {dialect.minute(moment)} AS window_start FROM {rows(table)}
    JOIN {dialect.given_rows(BOUNDS)} AS b ON {same_partition("r", "b")}
    WHERE r.kafka_offset >= {dialect.parameter(LOWEST)} AND r.kafka_offset >= b.bound"""

    of_rejected = f"COALESCE(r.event_time, r.kafka_timestamp, {dialect.moment('0')})"
    rows_above = [
        above(PAYMENTS, "r.event_time"),
        above(DUPLICATES, "r.event_time"),
        above(REJECTED, of_rejected),
    ]
    recomputed = totals_of_rows(dialect, rows, None, None, with_checksum=False)
    return f"""
WITH differences AS (
    SELECT window_start, outcome, records FROM ({recomputed})
    UNION ALL
    SELECT window_start, outcome, -records
    FROM {dialect.table(TOTALS)} WHERE outcome <> '{UNOBSERVED}'
), unfinished AS (
    SELECT window_start FROM differences GROUP BY window_start, outcome HAVING SUM(records) > 0
    UNION ALL {union(rows_above)}
)
SELECT DISTINCT {window_text("window_start")} AS window_start FROM unfinished
ORDER BY window_start"""
