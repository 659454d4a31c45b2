"""DuckDB's SQL, as transforms/destinations/sql/dialect.py names its pieces."""

from __future__ import annotations

from typing import Final

from transforms.destinations.duckdb.minutes import minute_start
from transforms.destinations.sql.coordinates import same_partition
from transforms.destinations.sql.dialect import Dialect

_WITH_ZONE: Final = "TIMESTAMP WITH TIME ZONE"


def _moment(micros: str) -> str:
    return f"make_timestamp(({micros})::BIGINT)"


def _rows_in_ranges(rows: str, ranges: str) -> str:
    """Joins each row to the last range that begins at or below it, in one sorted pass.

    Ranges of one partition do not overlap, so no other range can hold the row.
    """
    return f"""FROM ({rows}) r ASOF JOIN ({ranges}) f
    ON {same_partition("r", "f")} AND r.kafka_offset >= f.from_offset
    WHERE r.kafka_offset < f.to_offset"""


def _runs_of_rows(rows: str) -> str:
    """Takes each row as a run of its own.

    They are sorted once, all together; runs by block would cost a second pass.
    """
    return f"""SELECT kafka_topic, kafka_partition, kafka_offset AS first_offset,
        kafka_offset AS last_offset
    FROM {rows}"""


def _within(column: str, kind: str, first: str, last: str) -> str:
    make = "make_timestamptz" if kind == _WITH_ZONE else "make_timestamp"
    bounds = (f"{make}(({micros})::BIGINT)" for micros in (first, last))
    return f"{column} BETWEEN {' AND '.join(bounds)}"


DUCKDB: Final = Dialect(
    table=lambda name: name,
    aliased=lambda name, alias: f"{name} AS {alias}",
    quoted=lambda column: f'"{column}"',
    parameter=lambda name: f"${name}",
    is_among=lambda value, name: f"{value} IN (SELECT unnest(${name}::BIGINT[]))",
    given_rows=lambda name: f"_{name}",
    ranges="""(SELECT unnest($topics::VARCHAR[]) AS kafka_topic,
    unnest($partitions::BIGINT[]) AS kafka_partition,
    unnest($from_offsets::BIGINT[]) AS from_offset, unnest($to_offsets::BIGINT[]) AS to_offset)""",
    elements=lambda column, alias: f"unnest({column}) AS _({alias})",
    moment=_moment,
    micros=lambda moment: f"epoch_us({moment})",
    minute=lambda moment: _moment(minute_start(moment)),
    divide=lambda number, divisor: f"{number} // {divisor}",
    digest=lambda text: f"sha256({text})",
    unhex=lambda digits: f"unhex({digits})",
    sum_modulo=lambda number, modulus: f"(SUM({number}) % {modulus})::BIGINT",
    amount_type="DECIMAL(38,9)",
    sum_type="DECIMAL(38,9)",
    rows_in_ranges=_rows_in_ranges,
    runs_of_rows=_runs_of_rows,
    foreign_table=lambda name: f'"{name}"',
    key_types=("VARCHAR", "UUID", "INTEGER", "BIGINT", "HUGEINT", "UINTEGER", "UBIGINT"),
    time_types=("TIMESTAMP", _WITH_ZONE),
    as_moment=lambda column, kind: _moment(f"epoch_us({column})") if kind == _WITH_ZONE else column,
    within=_within,
)
