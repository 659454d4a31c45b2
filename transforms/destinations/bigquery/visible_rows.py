"""What is visible in BigQuery of ranges of offsets, for a repair: one query a question, whatever
the number of ranges.

No partition is left out: event times of coordinates are not known. A repair is rare, and
coordinates are narrow columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.bigquery.sql import (
    RANGES,
    Name,
    Query,
    in_range,
    offset_runs,
    rows_of_tables,
)
from transforms.destinations.bigquery.totals import totals_of_rows
from transforms.destinations.contract.visible_rows import (
    gaps_by_partition,
    offsets_by_table,
    range_parameters,
    single_number,
    totals_batch,
)
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.tables import GAPS, ROW_TABLES, TOTALS


def present_offsets(
    query: Query, name: Name, ranges: Sequence[OffsetRange]
) -> Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]:
    rows = f"""(SELECT r.table_name, r.kafka_topic, r.kafka_partition, r.kafka_offset FROM ({rows_of_tables(name)}) AS r
    JOIN {RANGES} AS f ON {in_range("r", "f")})"""
    sql = offset_runs(rows, "table_name, kafka_topic, kafka_partition")
    return offsets_by_table(query(sql, range_parameters(ranges)), ranges)


def present_gaps(
    query: Query, name: Name, ranges: Sequence[OffsetRange]
) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
    sql = f"""SELECT r.kafka_topic, r.kafka_partition, r.first_offset, r.last_offset FROM {name(GAPS)} AS r
JOIN {RANGES} AS f ON {in_range("r", "f", "first_offset")}"""
    return gaps_by_partition(query(sql, range_parameters(ranges)), ranges)


def present_totals(
    query: Query,
    name: Name,
    ranges: Sequence[OffsetRange],
    amount_column: str | None,
    currency_column: str | None,
) -> pa.RecordBatch:
    totals = totals_of_rows(
        lambda table: f"{name(table)} AS r JOIN {RANGES} AS f ON {in_range('r', 'f')}",
        amount_column,
        currency_column,
    )
    sql = f"SELECT window_start, outcome, currency, records, CAST(amount AS NUMERIC) AS amount, checksum FROM ({totals})"
    return totals_batch(query(sql, range_parameters(ranges)))


def count_rows(query: Query, name: Name) -> int:
    """Rows of the three tables. COUNT(*) alone reads no bytes."""
    return single_number(
        query(
            f"SELECT {' + '.join(f'(SELECT COUNT(*) FROM {name(table)})' for table in ROW_TABLES)}"
            " AS n",
            {},
        )
    )


def count_in_totals(query: Query, name: Name) -> int:
    """Records that control_totals account for."""
    return single_number(query(f"SELECT COALESCE(SUM(records), 0) AS n FROM {name(TOTALS)}", {}))


def is_empty(query: Query, name: Name) -> bool:
    """No row in any of the three tables of records."""
    return count_rows(query, name) == 0
