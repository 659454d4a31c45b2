"""A run record as a row of `pipeline_runs`: its columns, as parameters, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec
from google.cloud.bigquery import (
    ArrayQueryParameter,
    ArrayQueryParameterType,
    ScalarQueryParameter,
    ScalarQueryParameterType,
    StructQueryParameter,
    StructQueryParameterType,
)

from transforms.destinations.bigquery.parameters import Parameter, array_of_structs
from transforms.destinations.contract.run_ledger import RunRecord, TableProgress

ROOT: Final = "root"
"""run_id of the first row, which is no run.

It is only what genesis follows, so that genesis is claimed like every other record.
"""

_PARTITION: Final = {
    "topic": "STRING",
    "partition": "INT64",
    "topic_id": "STRING",
    "from_offset": "INT64",
    "to_offset": "INT64",
    "records": "INT64",
    "gap_offsets": "INT64",
    "coordinate_hash": "NUMERIC",  # 64 bits without a sign
    "start_watermark": "INT64",
    "watermark": "INT64",
    "position_since": "INT64",
}
COLUMNS: Final = {
    "run_id": "STRING NOT NULL",
    "predecessor": "STRING",
    "successor": "STRING",
    "status": "STRING NOT NULL",
    "plan_time": "TIMESTAMP NOT NULL",
    "cluster_id": "STRING",
    "partitions": "ARRAY<STRUCT<"
    + ", ".join(f"`{name}` {kind}" for name, kind in _PARTITION.items())
    + ">>",
    "tables": "ARRAY<STRUCT<`table` STRING, `rows` INT64,"
    " commit_groups ARRAY<STRUCT<streams ARRAY<STRING>>>>>",
    "lowest_watermark": "INT64",
    "live_ids": "INT64",
    "state_bytes": "INT64",
    "settings": "JSON",
    "repairs": "STRING",
}


def create_statement(table: str) -> str:
    """DDL with the root row in it. `table`: full name, quoted."""
    columns = ",\n    ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    root = {
        "run_id": f"'{ROOT}'",
        "status": "'COMMITTED'",
        "plan_time": "TIMESTAMP '1970-01-01 00:00:00+00'",
    }
    nothing = {
        name: f"CAST({'[]' if kind.startswith('ARRAY') else 'NULL'} AS {kind})"
        for name, kind in COLUMNS.items()
    }
    values = ", ".join(f"{value} AS {name}" for name, value in {**nothing, **root}.items())
    return f"""CREATE TABLE {table} (
    {columns})
PARTITION BY DATE(plan_time)
OPTIONS (description = 'one row per run of the pipeline') AS SELECT {values}"""


SELECT: Final = (
    "SELECT * EXCEPT (plan_time, settings), UNIX_MICROS(plan_time) AS plan_time,"
    " TO_JSON_STRING(settings) AS settings FROM"
)
"""What `to_record` reads; a table's name follows."""

VALUES: Final = {
    "successor": "NULL",
    "plan_time": "TIMESTAMP_MICROS(@plan_time)",
    "settings": "PARSE_JSON(@settings)",
}
"""The value of a column in a statement, where it is not the parameter of the same name."""

_STREAMS_TYPE: Final = StructQueryParameterType(
    ArrayQueryParameterType(ScalarQueryParameterType("STRING"), name="streams")
)
_TABLE_TYPE: Final = StructQueryParameterType(
    ScalarQueryParameterType("STRING", name="table"),
    ScalarQueryParameterType("INT64", name="rows"),
    ArrayQueryParameterType(_STREAMS_TYPE, name="commit_groups"),
)


def parameters_of(record: RunRecord) -> list[Parameter]:
    """The record as parameters, each by the name of its column."""
    text = {name: getattr(record, name) for name in ("run_id", "status", "cluster_id", "repairs")}
    numbers = {
        name: getattr(record, name)
        for name in ("plan_time", "lowest_watermark", "live_ids", "state_bytes")
    }
    # Only NUMERIC holds 64 bits without a sign.
    partitions = [
        {**msgspec.to_builtins(part), "coordinate_hash": Decimal(part.coordinate_hash)}
        for part in record.partitions
    ]
    return [
        ScalarQueryParameter("predecessor", "STRING", record.predecessor or ROOT),
        *(ScalarQueryParameter(name, "STRING", value) for name, value in text.items()),
        *(ScalarQueryParameter(name, "INT64", value) for name, value in numbers.items()),
        ScalarQueryParameter("settings", "STRING", json.dumps(record.settings, sort_keys=True)),
        array_of_structs("partitions", _PARTITION, partitions),
        ArrayQueryParameter("tables", _TABLE_TYPE, [_table(table) for table in record.tables]),
    ]


def _table(table: TableProgress) -> StructQueryParameter:
    groups = [
        StructQueryParameter(None, ArrayQueryParameter("streams", "STRING", group))
        for group in table.commit_groups
    ]
    return StructQueryParameter(
        None,
        ScalarQueryParameter("table", "STRING", table.table),
        ScalarQueryParameter("rows", "INT64", table.rows),
        ArrayQueryParameter("commit_groups", _STREAMS_TYPE, groups),
    )


def to_record(row: Mapping[str, Any]) -> RunRecord:
    """The record of a row of the table; a missing array reads as an empty one.

    BigQuery has no array of arrays, so a group of streams is a struct there.
    """
    predecessor = None if row["predecessor"] == ROOT else row["predecessor"]
    partitions = [
        {**part, "coordinate_hash": int(part["coordinate_hash"])} for part in row["partitions"]
    ]
    tables = [
        {**table, "commit_groups": [group["streams"] for group in table["commit_groups"]]}
        for table in row["tables"]
    ]
    changed = {
        "predecessor": predecessor,
        "partitions": partitions,
        "tables": tables,
        "settings": json.loads(row["settings"]),
    }
    return msgspec.convert({**row, **changed}, RunRecord)
