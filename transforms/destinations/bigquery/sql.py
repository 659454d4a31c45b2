"""Pieces of GoogleSQL that several questions share. Each function returns text; values travel as
named parameters.

Costs decide the form: BigQuery bills the bytes of the columns that a query names, in the partitions
that its conditions leave (https://cloud.google.com/bigquery/docs/querying-partitioned-tables). So
columns are named one by one, and the partition column is compared bare with a constant. Rows that
still lie in the write buffer are seen too: only conditions on the pseudo column _PARTITIONTIME miss
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import pyarrow as pa
from google.cloud.bigquery import (
    ArrayQueryParameter,
    ScalarQueryParameter,
    ScalarQueryParameterType,
    StructQueryParameter,
    StructQueryParameterType,
)

from transforms.destinations.contract.checks import OFFSETS_PER_BLOCK
from transforms.model.buckets import BUCKET_US
from transforms.model.tables import ROW_TABLES, RUNS

Name: TypeAlias = Callable[[str], str]
"""Table or view -> its full name, quoted: BigQuerySettings.table."""

Query: TypeAlias = Callable[[str, dict[str, Any]], pa.Table]
"""Text and parameters by name -> answer: BigQueryDestination.query."""

RANGES: Final = """(SELECT topic, @partitions[ORDINAL(position + 1)] AS `partition`, @from_offsets[ORDINAL(position + 1)] AS from_offset,
    @to_offsets[ORDINAL(position + 1)] AS to_offset FROM UNNEST(@topics) AS topic WITH OFFSET AS position)"""
"""The ranges of visible_rows.range_parameters as rows: `topic`, `partition`, `from_offset`,
`to_offset` (exclusive).
"""


def array_of_structs(
    name: str, kinds: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> ArrayQueryParameter:
    """A parameter for UNNEST. kinds: type by field; an array of no rows has them too. A request may
    have 10 MB (https://cloud.google.com/bigquery/quotas#query_jobs).
    """
    structs = [
        StructQueryParameter(
            None, *(ScalarQueryParameter(key, kind, row[key]) for key, kind in kinds.items())
        )
        for row in rows
    ]
    kind = StructQueryParameterType(
        *(ScalarQueryParameterType(kind, name=key) for key, kind in kinds.items())
    )
    return ArrayQueryParameter(name, kind, structs)


def rows_of_tables(name: Name) -> str:
    """The coordinates of all rows of the three tables, with the name of the table."""
    selects = (
        f"SELECT '{table}' AS table_name, kafka_topic, kafka_partition, kafka_offset FROM"
        f" {name(table)}"
        for table in ROW_TABLES
    )
    return " UNION ALL ".join(selects)


def ranges_of_runs(name: Name, status: str) -> str:
    """What the runs with this status have read: `run_id`, and the columns of RANGES."""
    return f"""SELECT run.run_id, part.topic, part.`partition`, part.from_offset, part.to_offset
    FROM {name(RUNS)} AS run, UNNEST(run.partitions) AS part WHERE run.status = '{status}' AND part.to_offset > part.from_offset"""


def in_range(row: str, span: str, offset: str = "kafka_offset") -> str:
    """A condition on two aliases: a row's coordinate lies in a range. The equalities let BigQuery
    join by hash.
    """
    return (
        f"{row}.kafka_topic = {span}.topic AND {row}.kafka_partition = {span}.`partition`"
        f" AND {row}.{offset} >= {span}.from_offset AND {row}.{offset} < {span}.to_offset"
    )


def offset_runs(rows: str, keys: str) -> str:
    """Runs without a hole for each value of the columns `keys`: those, `first_offset`,
    `last_offset`, and `n` rows.

    rows: what stands in FROM. DENSE_RANK gives a repeated offset its number once, so that it is
    part of its run.
    """
    return f"""SELECT {keys}, MIN(kafka_offset) AS first_offset, MAX(kafka_offset) AS last_offset, COUNT(*) AS n FROM (
    SELECT {keys}, kafka_offset, {block_of("kafka_offset")} AS block, kafka_offset - DENSE_RANK() OVER (
        PARTITION BY {keys}, {block_of("kafka_offset")} ORDER BY kafka_offset) AS island
    FROM {rows}
) GROUP BY {keys}, block, island"""


def block_of(offset: str) -> str:
    """Number of the block (OFFSETS_PER_BLOCK) that an offset lies in."""
    return f"DIV({offset}, {OFFSETS_PER_BLOCK})"


def minute_of(time: str) -> str:
    """The bucket's start. Exact also before 1970 and beyond 2255, where a division of microseconds
    as FLOAT64 is not.
    """
    return f"TIMESTAMP_TRUNC({time}, MINUTE)"


def bucket_of(time: str) -> str:
    """Number of the one-minute bucket; see transforms/model/buckets.py."""
    return f"DIV(UNIX_MICROS({minute_of(time)}), {BUCKET_US})"
