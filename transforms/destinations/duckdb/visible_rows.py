"""What is visible in DuckDB of ranges of offsets, for a repair. Signatures as in
bigquery_present.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.contract.visible_rows import (
    gaps_by_partition,
    offsets_by_table,
    range_parameters,
    single_number,
    totals_batch,
)
from transforms.destinations.duckdb.checks import ROWS, offset_runs
from transforms.destinations.duckdb.totals import totals_of_rows
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.tables import GAPS, ROW_TABLES, TOTALS

Query = Callable[[str, dict[str, Any]], pa.Table]

_RANGES: Final = """(SELECT unnest($topics::VARCHAR[]) AS topic, unnest($partitions::BIGINT[]) AS "partition",
    unnest($from_offsets::BIGINT[]) AS from_offset, unnest($to_offsets::BIGINT[]) AS to_offset)"""


def _within_ranges(rows: str, offset: str) -> str:
    return f"""(SELECT r.* FROM {rows} r SEMI JOIN {_RANGES} f ON r.kafka_topic = f.topic AND r.kafka_partition = f."partition"
        AND r.{offset} >= f.from_offset AND r.{offset} < f.to_offset)"""


def present_offsets(
    query: Query, ranges: Sequence[OffsetRange]
) -> Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]:
    sql = offset_runs(
        _within_ranges(f"({ROWS})", "kafka_offset"), "table_name, kafka_topic, kafka_partition"
    )
    return offsets_by_table(query(sql, range_parameters(ranges)), ranges)


def present_gaps(
    query: Query, ranges: Sequence[OffsetRange]
) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
    return gaps_by_partition(
        query(f"SELECT * FROM {_within_ranges(GAPS, 'first_offset')}", range_parameters(ranges)),
        ranges,
    )


def present_totals(
    query: Query,
    ranges: Sequence[OffsetRange],
    amount_column: str | None,
    currency_column: str | None,
) -> pa.RecordBatch:
    sql = totals_of_rows(
        lambda table: _within_ranges(table, "kafka_offset"), amount_column, currency_column
    )
    return totals_batch(query(sql, range_parameters(ranges)))


def count_rows(query: Query) -> int:
    return single_number(
        query(f"SELECT {' + '.join(f'(SELECT COUNT(*) FROM {table})' for table in ROW_TABLES)}", {})
    )


def count_in_totals(query: Query) -> int:
    return single_number(query(f"SELECT COALESCE(SUM(records), 0)::BIGINT FROM {TOTALS}", {}))
