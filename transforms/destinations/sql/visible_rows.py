"""What a repair asks of ranges of offsets: the texts behind contract/visible_rows.py.

The tables are not sorted by coordinates, and event times of coordinates are not known, so each
question reads the coordinates of all rows. A repair is rare, and coordinates are narrow columns.
"""

from __future__ import annotations

from transforms.destinations.sql.coordinates import in_range, offset_runs, rows_of_tables
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.totals import totals_of_rows
from transforms.model.tables import GAPS, REJECTED, ROW_TABLES, TOTALS


def present_offsets(dialect: Dialect) -> str:
    """The query for offsets with a row; columns as `offsets_by_table` takes them.

    Parameters `range_parameters`.
    """
    rows = f"""(
        SELECT r.table_name, r.kafka_topic, r.kafka_partition, r.kafka_offset
        FROM ({rows_of_tables(dialect)}) AS r JOIN {dialect.ranges} AS f ON {in_range("r", "f")}
    )"""
    return offset_runs(dialect.divide, rows, "table_name, kafka_topic, kafka_partition")


def present_gaps(dialect: Dialect) -> str:
    """The query for gaps in the ranges; columns as `gaps_by_partition` takes them.

    Parameters `range_parameters`.
    """
    return f"""
SELECT r.kafka_topic, r.kafka_partition, r.first_offset, r.last_offset
FROM {dialect.aliased(GAPS, "r")} JOIN {dialect.ranges} AS f
ON {in_range("r", "f", "first_offset")}"""


def lost_offsets(dialect: Dialect) -> str:
    """The same for accepted losses alone."""
    return f"{present_gaps(dialect)} WHERE r.cause = 'deleted'"


def rejected_by_reason(dialect: Dialect) -> str:
    """Parameters `range_parameters`, `first_time` and `last_time`. Columns: `reason`, `n`."""
    first, last = (dialect.moment(dialect.parameter(name)) for name in ("first_time", "last_time"))
    return f"""
SELECT r.reason, COUNT(*) AS n
FROM {dialect.table(REJECTED)} AS r JOIN {dialect.ranges} AS f ON {in_range("r", "f")}
WHERE r.ingest_time BETWEEN {first} AND {last}
GROUP BY r.reason"""


def present_totals(dialect: Dialect, amount_column: str | None, currency_column: str | None) -> str:
    """The query for totals of the ranges' rows; columns of `control_totals`.

    Parameters `range_parameters`.
    """
    totals = totals_of_rows(
        dialect,
        lambda table: (
            f"""{dialect.aliased(table, "r")}
    JOIN {dialect.ranges} AS f ON {in_range("r", "f")}"""
        ),
        amount_column,
        currency_column,
    )
    return f"""
SELECT window_start, outcome, currency, records, CAST(amount AS {dialect.amount_type}) AS amount,
    checksum
FROM ({totals})"""


def count_rows(dialect: Dialect) -> str:
    """The query for the number of rows; COUNT(*) alone reads no bytes in BigQuery."""
    counts = (f"(SELECT COUNT(*) FROM {dialect.table(table)})" for table in ROW_TABLES)
    return f"SELECT {' + '.join(counts)} AS n"


def count_in_totals(dialect: Dialect) -> str:
    """The query for the number of records in `control_totals`."""
    return f"SELECT CAST(COALESCE(SUM(records), 0) AS INT64) AS n FROM {dialect.table(TOTALS)}"
