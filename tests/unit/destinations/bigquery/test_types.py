"""The decoder is at least as strict as BigQuery.

What it lets through at the edge of each type, the table takes; what lies behind the edge it
rejects. Types: https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.schema_file import load_schema
from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.bigquery import bigquery, failures
from tests.support.in_memory_kafka import InMemoryKafka, run

FIELDS: list[dict[str, Any]] = [
    {"name": "transaction_id", "type": "STRING", "mode": "REQUIRED"},
    {"name": "event_time", "type": "TIMESTAMP", "mode": "REQUIRED"},
    {"name": "text", "type": "STRING"},
    {"name": "whole", "type": "INT64"},
    {"name": "real", "type": "FLOAT64"},
    {"name": "yes", "type": "BOOL"},
    {"name": "money", "type": "NUMERIC"},
    {"name": "moment", "type": "TIMESTAMP"},
    {"name": "day", "type": "DATE"},
    {"name": "bytes", "type": "BYTES"},
    {"name": "document", "type": "JSON"},
    {"name": "many", "type": "STRING", "mode": "REPEATED"},
    {
        "name": "inner",
        "type": "RECORD",
        "fields": [
            {"name": "name", "type": "STRING"},
            {"name": "days", "type": "DATE", "mode": "REPEATED"},
        ],
    },
    {
        "name": "inners",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [{"name": "money", "type": "NUMERIC", "mode": "REQUIRED"}],
    },
]

TAKEN: dict[str, list[str]] = {
    "text": [
        '""',
        '"\\u0000"',
        '"\\ud83d\\ude00"',
        '"\U0001f600"',
        '"\\uffff"',
        f'"{"x" * 100_000}"',
        "null",
    ],
    "whole": ["0", "-0", "9223372036854775807", "-9223372036854775808", "null"],
    "real": [
        "0",
        "1",
        "1.7976931348623157e308",
        "-1.7976931348623157e308",
        "5e-324",
        "1e-400",
        "null",
    ],
    "yes": ["true", "false", "null"],
    "money": [
        "0",
        "0.000000001",
        '"99999999999999999999999999999.999999999"',
        "-99999999999999999999999999999.999999999",
        "1e28",
        "1.500000000000",
        "null",
    ],
    "moment": [
        '"0001-01-01T00:00:00Z"',
        '"9999-12-31T23:59:59.999999Z"',
        '"9999-12-31T23:59:59.9999999Z"',
        '"0001-01-01T23:59:00+23:59"',
        "null",
    ],
    "day": ['"0001-01-01"', '"9999-12-31"', '"2024-02-29"', "null"],
    "bytes": ['""', '"AA=="', '"/+8="', "null"],
    "document": [
        "{}",
        "[]",
        "null",
        '"text"',
        "1",
        "true",
        '{"a":{"b":[1,2.5,null]}}',
        '{"deep":' + "[" * 100 + "]" * 100 + "}",
    ],
    "many": ["[]", "null", '["a"]', '["", "\\u0000"]'],
    "inner": [
        "null",
        "{}",
        '{"name":null,"days":[]}',
        '{"name":"a","days":["2024-02-29"]}',
        '{"days":null}',
    ],
    "inners": ["[]", "null", '[{"money":"1"}]', '[{"money":1},{"money":0.000000001}]'],
}
REFUSED: dict[str, list[str]] = {
    "text": ["1", "{}", "[]"],
    "whole": ["9223372036854775808", "-9223372036854775809", "1.0", "1e3", '"1"'],
    "real": ["1.8e308", '"1"', "NaN", '"NaN"', "Infinity"],
    "yes": ['"true"', "1"],
    "money": [
        "1e29",
        "0.0000000001",
        '"NaN"',
        '"1e-10"',
        "100000000000000000000000000000",
        '"1_0"',
        '" 1"',
    ],
    "moment": [
        '"0000-12-31T00:00:00Z"',
        '"10000-01-01T00:00:00Z"',
        '"0001-01-01T00:00:00+00:01"',
        '"2023-02-29T00:00:00Z"',
        "1",
    ],
    "day": ['"0000-01-01"', '"2023-02-29"', '"10000-01-01"', '"2023-1-1"'],
    "bytes": ['"%"', "1"],
    "many": ['"a"', "[null]", "[1]"],
    "inner": ['"a"', '{"days":["2023-02-29"]}'],
    "inners": ['[{"money":null}]', "[{}]", "[null]"],
}


def message(number: int, name: str, value: str) -> bytes:
    time = "2026-09-21T14:13:20Z"
    return (
        f'{{"transaction_id":"{name}-{number}","event_time":"{time}","{name}":{value}}}'
    ).encode()


def numbered(values: dict[str, list[str]]) -> list[bytes]:
    return [
        message(number, name, value)
        for name, texts in values.items()
        for number, value in enumerate(texts)
    ]


@pytest.fixture
def settings(stand_in: BigQueryStandIn, tmp_path: Path) -> Any:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(FIELDS))
    return bigquery(stand_in, schema=load_schema(str(file)))


def test_what_the_decoder_lets_through_the_table_takes(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, settings: Any
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *numbered(TAKEN))
    run(settings)
    assert stand_in.sql("SELECT transaction_id, reason, detail FROM rejected_records") == []
    assert stand_in.sql("SELECT COUNT(*) FROM payment_transactions") == [
        (sum(map(len, TAKEN.values())),)
    ]
    assert stand_in.sql(
        "SELECT money::VARCHAR FROM payment_transactions WHERE transaction_id = 'money-2'"
    ) == [("99999999999999999999999999999.999999999",)]
    assert failures(stand_in) == []


def test_what_lies_behind_the_edge_is_rejected_by_the_decoder_and_never_reaches_the_table(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, settings: Any
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *numbered(REFUSED))
    run(settings)
    assert stand_in.sql("SELECT transaction_id FROM payment_transactions") == []
    assert stand_in.sql("SELECT COUNT(*) FROM rejected_records") == [
        (sum(map(len, REFUSED.values())),)
    ]
    assert failures(stand_in) == []
