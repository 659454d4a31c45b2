"""What one value becomes, and what the detail of a rejected one says."""

from __future__ import annotations

import gzip
import json
import struct
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from pipeline.options.schema_file import load_schema
from transforms.decode.decoder import Decoder
from transforms.model.elements import RawBlock
from transforms.model.errors import UsageError
from transforms.model.schema import PaymentSchema

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND = timedelta(microseconds=1)
SECONDS = 1_764_271_170
KEY = {"name": "transaction_id", "type": "STRING", "mode": "REQUIRED"}
TIME = {"name": "event_time", "type": "TIMESTAMP", "mode": "REQUIRED"}
NESTED = [
    KEY,
    TIME,
    {"name": "payer", "type": "RECORD", "fields": [{"name": "name", "type": "STRING"}]},
    {
        "name": "steps",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [
            {"name": "at", "type": "TIMESTAMP"},
            {"name": "by", "type": "RECORD", "fields": [{"name": "id", "type": "INT64"}]},
        ],
    },
]


def schema_of(folder: Path, fields: list[dict[str, Any]], **options: Any) -> PaymentSchema:
    file = folder / "schema.json"
    file.write_text(json.dumps(fields))
    return load_schema(str(file), **options)


def decode(schema: PaymentSchema, *values: bytes, **options: Any) -> tuple[list[Any], list[Any]]:
    """Rows of payments, and (reason, detail) of the rejected."""
    block = RawBlock("t", 0, list(range(len(values))), [0] * len(values), list(values))
    found = Decoder(schema, **options).decode(block)
    rejected = [(row["reason"], row["detail"]) for row in found.rejected.to_pylist()]
    return found.payments.to_pylist(), rejected


def with_time(time: str) -> bytes:
    return f'{{"transaction_id":"a","event_time":{time},"amount":1,"currency":"EUR"}}'.encode()


def micros(time: str, unit: str | None = None) -> int:
    ((row,), _) = decode(load_schema(None, epoch_unit=unit), with_time(time))
    return int((row["event_time"] - EPOCH) // MICROSECOND)


def refusal(time: str, unit: str | None = None) -> tuple[str, str]:
    _, (found,) = decode(load_schema(None, epoch_unit=unit), with_time(time))
    return found


# Times in text.


@pytest.mark.parametrize(
    "text",
    [
        "2025-11-27T19:19:30Z", "2025-11-27t19:19:30z", "2025-11-27 19:19:30",
        "2025-11-27 19:19:30 UTC", "2025-11-27 19:19:30UTC", "2025-11-27 19:19:30 utc",
        "2025-11-27 19:19:30+00", "2025-11-27T19:19:30+0000", "2025-11-27T19:19:30-00:00",
        "2025-11-28T00:49:30+0530", "2025-11-28T00:49:30+05:30", "2025-11-28 00:49:30 +05:30",
        "2025-11-27 11:19:30-08", "2025-11-27 11:19:30-8",
        "2025-11-27T19:19:30.000000000Z", "2025-11-27T19:19:30.0000009+0000",
    ],
)  # fmt: skip
def test_forms_of_one_moment(text: str) -> None:
    assert micros(json.dumps(text)) == SECONDS * 1_000_000


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2025-11-27", "2025-11-27T00:00:00Z"),
        ("2025-1-7", "2025-01-07T00:00:00Z"),
        ("2025-1-7 3:4:5", "2025-01-07T03:04:05Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.999Z", "2017-01-01T00:00:00Z"),
        ("2017-01-01T05:29:60+0530", "2017-01-01T00:00:00Z"),
        ("2017-01-01 00:59:60+01", "2017-01-01T00:00:00Z"),
    ],
)
def test_what_bigquery_takes_besides(text: str, same: str) -> None:
    assert micros(json.dumps(text)) == micros(json.dumps(same))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("2026-02-30T00:00:00Z", "2026-02 has 28 days, so there is no day 30"),
        ("2026-02-29", "2026-02 has 28 days, so there is no day 29"),
        ("2026-04-31 00:00:00 UTC", "2026-04 has 30 days, so there is no day 31"),
        ("2026-13-01T00:00:00Z", "there is no month 13"),
        ("2026-01-00", "2026-01 has 31 days, so there is no day 00"),
        ("2026-01-01T24:00:00Z", "there is no time 24:00:00 in a day"),
        ("2026-01-01T23:59:61Z", "there is no time 23:59:61 in a day"),
        ("2026-01-01T00:00:00+2400", "has an offset from UTC of more than 23:59"),
        ("0000-01-01", "is no moment between the years 0001 and 9999"),
        ("9999-12-31T23:59:60Z", "is no moment between the years 0001 and 9999"),
    ],
)
def test_a_time_that_does_not_exist_says_why(text: str, why: str) -> None:
    reason, detail = refusal(json.dumps(text))
    assert reason == "out_of_range"
    assert detail.startswith(f"event_time: '{text}' ") and detail.endswith(why)


def test_a_date_that_does_not_exist_says_why(tmp_path: Path) -> None:
    schema = schema_of(tmp_path, [KEY, TIME, {"name": "day", "type": "DATE"}])
    value = b'{"transaction_id":"a","event_time":"2026-01-01","day":"2026-06-31"}'
    assert decode(schema, value) == (
        [],
        [
            (
                "out_of_range",
                "day: '2026-06-31' does not exist: 2026-06 has 30 days, so there is no day 31",
            )
        ],
    )


@pytest.mark.parametrize("time", ['"yesterday"', '""', "true", "[]", '{"seconds":1}'])
def test_what_is_no_time_at_all_is_shown(time: str) -> None:
    reason, detail = refusal(time)
    assert reason == "wrong_type"
    assert time.strip('"') in detail and "is not a time of RFC 3339 or BigQuery" in detail


# Times in numbers.


@pytest.mark.parametrize("written", ["{}", '"{}"'])
@pytest.mark.parametrize(
    ("unit", "number", "expected"),
    [
        ("s", "1764271170", SECONDS * 1_000_000),
        ("s", "1764271170.123456", SECONDS * 1_000_000 + 123_456),
        ("s", "1764271170.1234569", SECONDS * 1_000_000 + 123_456),
        ("s", "1.764271170123456e9", SECONDS * 1_000_000 + 123_456),
        ("s", "253402300799.999999", 253_402_300_799_999_999),
        ("s", "-0.5", -500_000),
        ("s", "-0.0000001", -1),
        ("ms", "1764271170123", SECONDS * 1_000_000 + 123_000),
        ("ms", "1764271170123.4567", SECONDS * 1_000_000 + 123_456),
        ("us", "1764271170123456", SECONDS * 1_000_000 + 123_456),
        ("ns", "1764271170123456789", SECONDS * 1_000_000 + 123_456),
        ("ns", "9223372036854775807", 9_223_372_036_854_775),
        ("ns", "253402300799999999999", 253_402_300_799_999_999),
        ("ns", "-1", -1),
        ("s", "0", 0),
    ],
)
def test_numbers_are_exact(unit: str, number: str, expected: int, written: str) -> None:
    assert micros(written.format(number), unit) == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("number", ["1e30", "-1e30", "9" * 4000, "1e999999999999"])
def test_numbers_out_of_range(unit: str, number: str) -> None:
    for written in (number, f'"{number}"'):
        reason, detail = refusal(written, unit)
        assert reason == "out_of_range"
        assert f"{unit} since 1970 is no moment between the years 0001 and 9999" in detail


def test_milliseconds_that_are_read_as_seconds_name_the_unit_that_fits() -> None:
    assert refusal("1764271170123", "s") == (
        "out_of_range",
        "event_time: 1764271170123 s since 1970 is no moment between the years 0001 and 9999;"
        " --epoch_unit=ms, or epochUnit in the schema file, would make it"
        " 2025-11-27T19:19:30.123000Z",
    )


@pytest.mark.parametrize(
    ("number", "unit"),
    [
        ("1764271170", "s"),
        ("1764271170.5", "s"),
        ("1764271170123", "ms"),
        ("1764271170123456", "us"),
        ("1764271170123456789", "ns"),
    ],
)
def test_without_a_unit_the_detail_shows_the_value_and_names_the_option(
    number: str, unit: str
) -> None:
    for time, shown in ((number, number), (f'"{number}"', f"'{number}'")):
        reason, detail = refusal(time)
        assert reason == "wrong_type"
        assert detail.startswith(f"event_time: {shown} is a number, and its unit is not known;")
        assert (
            f"--epoch_unit={unit}, or epochUnit in the schema file, would make it 2025-11-27T19:"
            in detail
        )
    assert "--epoch_unit=s|ms|us|ns" in refusal("5")[1]


def test_text_stays_text_where_numbers_have_a_unit() -> None:
    assert micros('"2025-11-27 19:19:30 UTC"', "ms") == SECONDS * 1_000_000
    assert micros('"2025-11-27T19:19:30.5Z"', "ms") == SECONDS * 1_000_000 + 500_000


def test_a_field_has_a_unit_of_its_own(tmp_path: Path) -> None:
    fields = [
        KEY,
        {**TIME, "epochUnit": "ms"},
        {"name": "seen", "type": "TIMESTAMP"},
        {"name": "marks", "type": "TIMESTAMP", "mode": "REPEATED", "epochUnit": "us"},
        {
            "name": "payer",
            "type": "RECORD",
            "fields": [{"name": "since", "type": "TIMESTAMP", "epochUnit": "ns"}],
        },
    ]
    value = json.dumps(
        {
            "transaction_id": "a",
            "event_time": SECONDS * 1000,
            "seen": SECONDS,
            "marks": [SECONDS * 1_000_000, str(SECONDS * 1_000_000)],
            "payer": {"since": SECONDS * 1_000_000_000},
        }
    ).encode()
    moment = EPOCH + timedelta(seconds=SECONDS)
    schema = schema_of(tmp_path, fields, epoch_unit="s")
    ((row,), _) = decode(schema, value)
    assert [row["event_time"], row["seen"], *row["marks"], row["payer"]["since"]] == [moment] * 5
    assert schema.epoch_units() == {
        "event_time": "ms", "seen": "s", "marks": "us", "payer.since": "ns"
    }  # fmt: skip
    without = schema_of(tmp_path, fields)
    assert decode(without, value)[1][0][0] == "wrong_type"
    assert without.to_json() == schema.to_json(), "the unit is no part of a column's type"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (
            {**TIME, "epochUnit": "minutes"},
            'has the epochUnit "minutes"; allowed are s, ms, us, ns',
        ),
        ({**TIME, "epochUnit": None}, "has the epochUnit null; allowed are s, ms, us, ns"),
        ({**TIME, "epochUnit": ["s"]}, 'has the epochUnit ["s"]; allowed are s, ms, us, ns'),
        ({"name": "n", "type": "INT64", "epochUnit": "s"}, "only a TIMESTAMP has"),
        ({"name": "n", "type": "DATE", "epochUnit": "s"}, "only a TIMESTAMP has"),
    ],
)
def test_a_wrong_unit_is_refused(tmp_path: Path, field: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        schema_of(tmp_path, [KEY, TIME, field])
    assert words in str(refused.value) and "field" in str(refused.value)


# Fields that the schema does not name.


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (
            '"payer":{"name":"A","extra":1},"payer.extra":2',
            {"payer": {"extra": 1}, "payer.extra": 2},
        ),
        ('"payer":{"x":{"y":[1]},"name":"A"}', {"payer": {"x": {"y": [1]}}}),
        ('"steps":[{"more":1},{},{"by":{"id":1,"at":2}}]',
         {"steps": [{"more": 1}, None, {"by": {"at": 2}}]}),
        ('"steps":[{},{"a":1}],"steps[1].a":2,"steps[1]":{"a":3}',
         {"steps": [None, {"a": 1}], "steps[1].a": 2, "steps[1]": {"a": 3}}),
        ('"payer":{"extra":1,"extra":2},"b":1,"b":null', {"payer": {"extra": 2}, "b": None}),
        ('"payer":{"":1},"":2', {"payer": {"": 1}, "": 2}),
        ('"steps":[{}],"payer":{}', None),
    ],
)  # fmt: skip
def test_unknown_fields_keep_their_structure(tmp_path: Path, members: str, expected: Any) -> None:
    value = f'{{"transaction_id":"a","event_time":"2026-01-01",{members}}}'.encode()
    schema = schema_of(tmp_path, NESTED)
    ((row,), _) = decode(schema, value)
    kept = row["unknown_fields"]
    assert (kept and json.loads(kept)) == expected
    _, rejected = decode(schema, value, unknown_fields="reject")
    assert [reason for reason, _ in rejected] == ([] if expected is None else ["unknown_field"])


def test_the_detail_says_where_unknown_fields_stand(tmp_path: Path) -> None:
    members = '"payer":{"extra":1},"steps":[{},{"more":2}],"z":3'
    value = f'{{"transaction_id":"a","event_time":"2026-01-01",{members}}}'.encode()
    _, ((_, detail),) = decode(schema_of(tmp_path, NESTED), value, unknown_fields="reject")
    assert detail.startswith("payer.extra, steps[1].more, z: not in the schema")


@pytest.mark.parametrize("key", ["transaction_id", "amount", "status"])
def test_of_a_key_that_comes_twice_the_last_value_counts(key: str) -> None:
    first = {"transaction_id": '"x"', "amount": '"broken"', "status": "17"}[key]
    members = '"transaction_id":"a","event_time":"2026-01-01","amount":2,"currency":"EUR"'
    value = f'{{"{key}":{first},{members},"status":"ok"}}'.encode()
    ((row,), _) = decode(load_schema(None), value)
    assert (row["transaction_id"], row["amount"], row["status"]) == ("a", 2, "ok")


# Values that are no JSON.

DOCUMENT = '{"transaction_id":"ä"}'


@pytest.mark.parametrize(
    "members", ['"payer":{"x":{"y":%s}}', '"steps":[{"by":{"x":%s}}]', '"x":%s']
)
def test_no_depth_is_an_error(tmp_path: Path, members: str) -> None:
    schema = schema_of(tmp_path, NESTED)
    for depth in (10, 500, *range(850, 1010), 5000):
        array = "[" * depth + "]" * depth
        value = f'{{"transaction_id":"a","event_time":"2026-01-01",{members % array}}}'.encode()
        payments, rejected = decode(schema, value)
        assert len(payments) + len(rejected) == 1
        assert depth > 500 or payments
        assert depth < 1000 or rejected == [("invalid_json", "nested too deeply")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"\xef\xbb\xbf" + DOCUMENT.encode(), "a byte order mark of UTF-8 (EF BB BF)"),
        (DOCUMENT.encode("utf-16"), "a byte order mark of UTF-16 (little endian)"),
        (b"\xfe\xff" + DOCUMENT.encode("utf-16-be"), "a byte order mark of UTF-16 (big endian)"),
        (DOCUMENT.encode("utf-16-le"), "UTF-16 (little endian, without a mark)"),
        (DOCUMENT.encode("utf-16-be"), "UTF-16 (big endian, without a mark)"),
        (("\n " + DOCUMENT).encode("utf-16-be"), "UTF-16 (big endian, without a mark)"),
        (DOCUMENT.encode("utf-32-le"), "UTF-32 (little endian, without a mark)"),
        (DOCUMENT.encode("utf-32-be"), "UTF-32 (big endian, without a mark)"),
        (DOCUMENT.encode("utf-32"), "a byte order mark of UTF-32"),
        (struct.pack(">bI", 0, 42) + DOCUMENT.encode(), "(a null byte, and the schema id 42)"),
        (struct.pack(">bI", 0, 1) + b"\x02a\x00", "Confluent's Schema Registry"),
        (struct.pack(">bI", 0, 100_123) + b"\x00\x0a\x01a", "the schema id 100123)"),
        (struct.pack(">bI", 0, 123) + b'"x"', "the schema id 123)"),
        (gzip.compress(DOCUMENT.encode(), mtime=0), "the magic number of gzip"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "the magic number of zstd"),
        (b"\xff\x06\x00\x00sNaPpY\x01", "the magic number of Snappy"),
        (b"\x82SNAPPY\x00\x00\x00\x00\x01", "the magic number of Snappy"),
        (b"\x04\x22\x4d\x18\x40", "the magic number of LZ4"),
        (b"Obj\x01\x04", "the magic number of an Avro file"),
        (b"\xc3\x01" + bytes(8), "the marker of a single Avro object"),
        (b"", "the value has no bytes"),
    ],
)
def test_the_detail_names_what_the_value_is(value: bytes, words: str) -> None:
    _, ((reason, detail),) = decode(load_schema(None), value)
    assert reason == "invalid_json"
    assert words in detail and "\x00" not in detail


@pytest.mark.parametrize(
    "value", [b"broken", b"{", b"\x00", b"\x00\x00", bytes(8), b"[1", b"\xff", b"{}{}"]
)
def test_other_values_keep_the_parsers_message(value: bytes) -> None:
    _, ((reason, detail),) = decode(load_schema(None), value)
    assert reason == "invalid_json"
    assert detail and "begins with" not in detail
