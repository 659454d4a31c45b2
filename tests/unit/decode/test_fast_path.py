"""What the fast path takes, what it leaves to the record rule, and that nobody sees which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.schema_file import load_schema
from transforms.decode import learned_names
from transforms.decode.decoder import Decoder
from transforms.decode.fast_path import _depth
from transforms.decode.record_rule import RecordRule
from transforms.model.elements import DecodedBlock, RawBlock
from transforms.model.schema import PaymentSchema

FIELDS: list[dict[str, Any]] = [
    {"name": "transaction_id", "type": "STRING", "mode": "REQUIRED"},
    {"name": "event_time", "type": "TIMESTAMP", "mode": "REQUIRED"},
    {"name": "day", "type": "DATE"},
    {"name": "notes", "type": "JSON"},
    {
        "name": "payer",
        "type": "RECORD",
        "fields": [
            {"name": "id", "type": "STRING", "mode": "REQUIRED"},
            {"name": "home", "type": "RECORD", "fields": [{"name": "city", "type": "STRING"}]},
        ],
    },
    {"name": "marks", "type": "NUMERIC", "mode": "REPEATED"},
    {
        "name": "steps",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [
            {"name": "at", "type": "TIMESTAMP"},
            {"name": "ids", "type": "INT64", "mode": "REPEATED"},
        ],
    },
]
PAYMENT = '{"transaction_id":"a","event_time":"2026-01-01",%s}'


@pytest.fixture
def schema(tmp_path: Path) -> PaymentSchema:
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(FIELDS))
    return load_schema(str(file))


def decode(decoder: Decoder, *values: bytes) -> DecodedBlock:
    return decoder.decode(
        RawBlock("t", 0, list(range(len(values))), [0] * len(values), list(values))
    )


def payment(members: str) -> bytes:
    return (PAYMENT % members).encode()


NESTED = [
    '"payer":{"id":"b","home":{"city":"c"}},"marks":[1,"2.5"],"steps":[{"at":"2026-01-01","ids":[1]}]',
    '"payer":null,"marks":null,"steps":null,"day":"2026-02-28","notes":{"x":[1,{}]}',
    '"payer":{"id":"b","home":null},"marks":[],"steps":[{},{"ids":null},{"at":null,"ids":[]}]',
    '"notes":null,"day":null',
]
UNKNOWN = [
    '"more":1',
    '"more":1,"x":{"y":2},"a\\"b":[null]',
    '"payer":{"id":"b","more":1,"home":{"more":2}},"steps":[{"x":1},{},{"y":2,"x":3}],"z":4',
    '"steps":[{}],"more":null',
]


@pytest.mark.parametrize("worth", [1, 1000])
def test_nested_and_unknown_fields_take_the_fast_path(
    monkeypatch: pytest.MonkeyPatch, schema: PaymentSchema, worth: int
) -> None:
    values = [payment(members) for members in NESTED + UNKNOWN]
    rows = [RecordRule(schema, False, 1 << 20).judge(value).row for value in values]

    def no_rule(rule: RecordRule, value: bytes | None) -> None:
        raise AssertionError(f"left to the record rule: {value!r}")

    monkeypatch.setattr(RecordRule, "judge", no_rule)
    monkeypatch.setattr(learned_names, "_WORTH", worth)
    decoder = Decoder(schema)
    for _ in range(3):
        found = decode(decoder, *values).payments
        found.validate(full=True)
        assert found.column("unknown_fields").to_pylist() == [
            row and row["unknown_fields"] for row in rows
        ]
        assert found.column("steps").to_pylist()[2] == [
            {"at": None, "ids": []},
            {"at": None, "ids": []},
            {"at": None, "ids": []},
        ]


@pytest.mark.parametrize(
    "members",
    [
        '"payer":{}',
        '"payer":{"id":null}',
        '"payer":[]',
        '"marks":[null]',
        '"marks":[1e400]',
        '"steps":[null]',
        '"steps":[{"ids":[1,null]}]',
        '"steps":[{"ids":[9223372036854775808]}]',
        '"steps":{"at":"2026-01-01"}',
        '"day":"2026-02-30"',
        '"day":"0000-01-01"',
    ],
)
def test_a_broken_value_in_a_nested_field_rejects_its_own_record_only(
    schema: PaymentSchema, members: str
) -> None:
    good = payment(NESTED[0])
    found = decode(Decoder(schema), good, payment(members), payment(UNKNOWN[2]), good)
    assert found.payload_index.tolist() == [0, 2, 3]
    assert found.rejected.column("kafka_offset").to_pylist() == [1]
    assert (
        found.payments.column("marks").to_pylist()[2]
        == found.payments.column("marks").to_pylist()[0]
    )


# Limits that msgspec.Raw does not have.

PLACES = {
    "an unknown field": '"more":%s',
    "an unknown field that comes twice": '"more":%s,"more":1',
    "an unknown field of a RECORD": '"payer":{"id":"b","home":{"more":%s}}',
    "a field": '"notes":%s',
    "a field that comes twice": '"notes":%s,"notes":1',
}


@pytest.mark.parametrize("place", PLACES)
def test_no_depth_is_an_error(
    monkeypatch: pytest.MonkeyPatch, schema: PaymentSchema, place: str
) -> None:
    monkeypatch.setattr(learned_names, "_WORTH", 1)
    decoder = Decoder(schema)
    decode(decoder, *(payment(PLACES[place] % "1") for _ in range(2)))
    verdicts = set()
    for depth in (10, 390, 399, 400, 401, 500, *range(850, 1010), 5000):
        (reason,) = decode(
            decoder, payment(PLACES[place] % ("[" * depth + "]" * depth))
        ).rejected.column("reason").to_pylist() or [None]
        verdicts.add((depth, reason))
    assert {reason for depth, reason in verdicts if depth <= 500} == {None}
    assert {reason for depth, reason in verdicts if depth >= 1000} == {"invalid_json"}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("digits", [4_200, 4_301, 5_000])
def test_an_integer_of_very_many_digits_is_what_the_rule_says(
    monkeypatch: pytest.MonkeyPatch, schema: PaymentSchema, place: str, digits: int
) -> None:
    monkeypatch.setattr(learned_names, "_WORTH", 1)
    decoder = Decoder(schema)
    value = payment(PLACES[place] % ("1" * digits))
    expected = decoder.rule.judge(value).reason or None
    assert expected == (None if digits < 4_300 else "invalid_json")
    for _ in range(2):
        rejected = decode(decoder, payment(PLACES[place] % "1"), value).rejected
        assert rejected.column("reason").to_pylist() == ([expected] if expected else [])


@pytest.mark.parametrize(
    ("value", "depth"),
    [
        (b"", 0),
        (b"1", 0),
        (b"[]", 1),
        (b'{"a":[{},[[]]],"b":{}}', 4),
        (b'{"a":"[[[[[","b":"}}}}]"}', 1),
        (b'{"a":"\\\\","b":"[","c":["\\"[["]}', 2),
        (b'["\\\\\\"[[[[",{"a\\\\":"]"}]', 2),
    ],
)
def test_the_depth_of_a_value(value: bytes, depth: int) -> None:
    assert _depth(value) == depth
    assert not value or json.loads(value) is not None


def test_a_large_array_of_records_takes_the_fast_path(
    monkeypatch: pytest.MonkeyPatch, schema: PaymentSchema
) -> None:
    step = '{"at":"2026-01-01T00:00:00Z","ids":[1,2],"more":"}]"}'
    value = payment(f'"steps":[{",".join([step] * 1000)}]')
    expected = RecordRule(schema, False, 1 << 20).judge(value).row
    monkeypatch.delattr(RecordRule, "judge")
    (row,) = decode(Decoder(schema), value).payments.to_pylist()
    assert len(row["steps"]) == 1000
    assert expected is not None and row["unknown_fields"] == expected["unknown_fields"]
