"""GoogleSQL, as transforms/destinations/sql/dialect.py names its pieces.

Costs decide the form of the questions: BigQuery bills the bytes of the columns that a query names,
in the partitions that its conditions leave
(https://cloud.google.com/bigquery/docs/querying-partitioned-tables). So columns are named one by
one, and the partition column is compared bare with a constant. Rows that still lie in the write
buffer are seen too: only conditions on the pseudo column _PARTITIONTIME miss them.

Amounts are added up as BIGNUMERIC, 76 digits: sums of amounts that were altered may leave NUMERIC
(https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types), and
`check` must say so, not fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from transforms.destinations.contract.checks import OFFSETS_PER_BLOCK
from transforms.destinations.sql.coordinates import in_range, offset_runs
from transforms.destinations.sql.dialect import Dialect

_RANGES: Final = """(SELECT topic AS kafka_topic,
    @partitions[ORDINAL(position + 1)] AS kafka_partition,
    @from_offsets[ORDINAL(position + 1)] AS from_offset,
    @to_offsets[ORDINAL(position + 1)] AS to_offset
    FROM UNNEST(@topics) AS topic WITH OFFSET AS position)"""

_DATETIME: Final = "DATETIME"
"""A type without a zone, taken as UTC."""


def google_sql(table: Callable[[str], str], as_of: str = "") -> Dialect:
    """The dialect with the names of one dataset's tables.

    table: name of a table or view -> its full name, quoted (BigQuerySettings.table). as_of: what
    follows each table and its alias in FROM, see `as_of_moment`.
    """
    return Dialect(
        table=lambda name: table(name) + as_of,
        aliased=lambda name, alias: f"{table(name)} AS {alias}{as_of}",
        quoted=lambda column: f"`{column}`",
        parameter=lambda name: f"@{name}",
        is_among=lambda value, name: f"{value} IN UNNEST(@{name})",
        given_rows=lambda name: f"UNNEST(@{name})",
        ranges=_RANGES,
        elements=lambda column, alias: f"UNNEST({column}) AS {alias}",
        moment=lambda micros: f"TIMESTAMP_MICROS({micros})",
        micros=lambda moment: f"UNIX_MICROS({moment})",
        minute=minute_of,
        divide=_divide,
        digest=lambda text: f"TO_HEX(SHA256({text}))",
        unhex=lambda digits: f"FROM_HEX({digits})",
        sum_modulo=_sum_modulo,
        amount_type="NUMERIC",
        sum_type="BIGNUMERIC",
        rows_in_ranges=_rows_in_ranges,
        runs_of_rows=_runs_of_rows,
        foreign_table=lambda name: f"`{name}`",
        key_types=("STRING", "INTEGER"),
        time_types=("TIMESTAMP", _DATETIME),
        as_moment=lambda column, kind: f"TIMESTAMP({column})" if kind == _DATETIME else column,
        within=_within,
    )


def as_of_moment(micros: int) -> str:
    """Clause behind a base table and its alias: its rows as they were at a moment.

    micros: microseconds since 1970, not in the future and not more than the dataset's time travel
    window ago. All mentions of a table in one query must have the same moment, and it must be a
    constant
    (https://cloud.google.com/bigquery/docs/reference/standard-sql/query-syntax#for_system_time_as_of).
    """
    return f" FOR SYSTEM_TIME AS OF TIMESTAMP_MICROS({micros})"


def minute_of(moment: str) -> str:
    """The start of the minute of a moment.

    Exact also before 1970 and beyond 2255, where a division of microseconds as FLOAT64 is not.
    """
    return f"TIMESTAMP_TRUNC({moment}, MINUTE)"


def _within(column: str, kind: str, first: str, last: str) -> str:
    moments = (f"TIMESTAMP_MICROS({micros})" for micros in (first, last))
    bounds = (f"DATETIME({moment})" if kind == _DATETIME else moment for moment in moments)
    return f"{column} BETWEEN {' AND '.join(bounds)}"


def _divide(number: str, divisor: int) -> str:
    return f"DIV({number}, {divisor})"


def _sum_modulo(number: str, modulus: int) -> str:
    """The sum modulo `modulus`, added up as BIGNUMERIC (76 digits).

    A sum of 60-bit numbers leaves INT64 after eight rows.
    """
    total = f"SUM(CAST({number} AS BIGNUMERIC))"
    return f"CAST(MOD({total}, CAST({modulus} AS BIGNUMERIC)) AS INT64)"


def _rows_in_ranges(rows: str, ranges: str) -> str:
    """Joins rows to ranges by the block of offsets; a range stands once for each block it touches.

    BigQuery has no ASOF JOIN. Joined by the partition alone, every row would be compared with every
    run of its partition.
    """
    first = _divide("span.from_offset", OFFSETS_PER_BLOCK)
    last = _divide("(span.to_offset - 1)", OFFSETS_PER_BLOCK)
    return f"""FROM ({rows}) AS r JOIN (
    SELECT span.run_id, span.kafka_topic, span.kafka_partition, span.from_offset, span.to_offset,
        block
    FROM ({ranges}) AS span, UNNEST(GENERATE_ARRAY({first}, {last})) AS block
) AS f ON {_divide("r.kafka_offset", OFFSETS_PER_BLOCK)} = f.block AND {in_range("r", "f")}"""


def _runs_of_rows(rows: str) -> str:
    """Finds the runs block by block: one worker alone would sort all rows of a partition."""
    runs = offset_runs(_divide, rows, "kafka_topic, kafka_partition")
    return f"SELECT kafka_topic, kafka_partition, first_offset, last_offset FROM ({runs})"
