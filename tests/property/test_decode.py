"""The decoder against the slow, obvious one, and against its own record rule: on odd values, on
nested, repeated and unknown fields, and on mutated bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.options.schema_file import load_schema
from tests.property import slow_decoder
from tests.property.both_decoders import decode, found, must_agree
from tests.support.examples import examples
from transforms.decode import learned_names
from transforms.decode.decoder import Decoder
from transforms.model.schema import ARROW_TYPES, EPOCH_UNITS, PaymentSchema, SchemaField

WIDE: list[dict[str, Any]] = [
    {"name": "transaction_id", "type": "STRING", "mode": "REQUIRED"},
    {"name": "event_time", "type": "TIMESTAMP", "mode": "REQUIRED"},
    {"name": "amount", "type": "NUMERIC", "mode": "REQUIRED"},
    {"name": "fee", "type": "NUMERIC"},
    {"name": "count", "type": "INT64"},
    {"name": "score", "type": "FLOAT64"},
    {"name": "paid", "type": "BOOL"},
    {"name": "day", "type": "DATE"},
    {"name": "seen", "type": "TIMESTAMP"},
    {"name": "raw", "type": "BYTES"},
    {"name": "extra", "type": "JSON"},
    {"name": "tags", "type": "STRING", "mode": "REPEATED"},
    {
        "name": "payer",
        "type": "RECORD",
        "fields": [
            {"name": "name", "type": "STRING", "mode": "REQUIRED"},
            {"name": "limits", "type": "NUMERIC", "mode": "REPEATED"},
        ],
    },
    {
        "name": "steps",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [{"name": "at", "type": "TIMESTAMP"}],
    },
]

DEEP: list[dict[str, Any]] = [
    {"name": "transaction_id", "type": "STRING", "mode": "REQUIRED"},
    {"name": "event_time", "type": "TIMESTAMP", "mode": "REQUIRED"},
    {"name": "amount", "type": "NUMERIC", "mode": "REQUIRED"},
    *({"name": f"many_{kind.lower()}", "type": kind, "mode": "REPEATED"} for kind in ARROW_TYPES),
    {
        "name": "payer",
        "type": "RECORD",
        "fields": [
            {"name": "transaction_id", "type": "STRING"},
            {"name": "amount", "type": "NUMERIC", "mode": "REQUIRED"},
            {"name": "born", "type": "DATE"},
            {
                "name": "address",
                "type": "RECORD",
                "fields": [
                    {"name": "city", "type": "STRING", "mode": "REQUIRED"},
                    {"name": "geo", "type": "FLOAT64", "mode": "REPEATED"},
                    {"name": "notes", "type": "JSON", "mode": "REQUIRED"},
                ],
            },
        ],
    },
    {
        "name": "class",
        "type": "RECORD",
        "mode": "REQUIRED",
        "fields": [{"name": "from", "type": "INT64"}, {"name": "at", "type": "TIMESTAMP"}],
    },
    {
        "name": "steps",
        "type": "RECORD",
        "mode": "REPEATED",
        "fields": [
            {"name": "at", "type": "TIMESTAMP", "mode": "REQUIRED"},
            {
                "name": "by",
                "type": "RECORD",
                "fields": [{"name": "id", "type": "INT64", "mode": "REQUIRED"}],
            },
            {
                "name": "marks",
                "type": "RECORD",
                "mode": "REPEATED",
                "fields": [
                    {"name": "fee", "type": "NUMERIC"},
                    {"name": "ok", "type": "BOOL", "mode": "REQUIRED"},
                    {"name": "raw", "type": "BYTES"},
                ],
            },
        ],
    },
]


@pytest.fixture(scope="module", params=[1, 64], ids=["learning", "not learning"])
def learning(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whether names that the schema does not have are decoded with the others at once, or only
    once many values had them.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learned_names, "_WORTH", request.param)
        yield


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PaymentSchema]:
    file = tmp_path_factory.mktemp("schema") / "wide.json"
    Path(file).write_text(json.dumps(WIDE))
    deep = tmp_path_factory.mktemp("schema") / "deep.json"
    Path(deep).write_text(json.dumps(DEEP))
    mixed = tmp_path_factory.mktemp("schema") / "mixed.json"
    units = {"event_time": {"epochUnit": "ms"}, "seen": {"epochUnit": "us"}}
    Path(mixed).write_text(json.dumps([field | units.get(field["name"], {}) for field in WIDE]))
    by_unit = {unit: load_schema(str(file), epoch_unit=unit) for unit in EPOCH_UNITS}
    return {
        "default": load_schema(None),
        "wide": load_schema(str(file)),
        "mixed": load_schema(str(mixed), epoch_unit="s"),
        "deep": load_schema(str(deep)),
        "deep in ms": load_schema(str(deep), epoch_unit="ms"),
        **by_unit,
    }


numbers = st.one_of(
    st.integers(-(10**31), 10**31).map(str),
    st.decimals(
        allow_nan=False, allow_infinity=False, places=9, min_value=-(10**20), max_value=10**20
    ).map(str),
    st.sampled_from(
        [
            "0",
            "-0",
            "0.0",
            "1e3",
            "1E-9",
            "1e-10",
            "1.50",
            "1.0000000001",
            "1.000000000000",
            "99999999999999999999",
            "100000000000000000000",
            "99999999999999999999.999999999",
            "0.1e1",
            "9223372036854775807",
            "9223372036854775808",
            "-9223372036854775808",
            "-9223372036854775809",
            "1e400",
            "1e-400",
            "1e99999999",
            "0e99999999",
            "1e22",
            "99999999999999999999999999999",
            "100000000000000000000000000000",
            "00",
            "01",
            "+1",
            "1.",
            ".5",
            "-",
            "1e",
            "0x1",
            "NaN",
            "Infinity",
            "-Infinity",
            "1_0",
        ]
    ),
)
times = st.one_of(
    st.datetimes().map(lambda time: time.isoformat()),
    st.sampled_from(
        [
            "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789Z", "2026-01-01 00:00:00",
            "2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00 +02:00", "2026-02-29T00:00:00Z",
            "2024-02-29T23:59:59.999999-23:59", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59-00:01", "0000-01-01T00:00:00Z",
            "2026-01-01T24:00:00Z", "2026-01-01T23:59:60Z", "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00Z", "2026-01-01", "yesterday", "", "2026-01-01t00:00:00z",
            "2026-1-1T00:00:00Z", "\u0662026-01-01T00:00:00Z", "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00+0530", "2026-01-01 00:00:00.5-0000", "2026-01-01 00:00:00+00",
            "2026-01-01 00:00:00 UTC", "2026-01-01T00:00:00.999999999UTC", "2026-1-1 1:2:3+5:3",
            "2026-01-01 00:00:00+053", "2026-01-01+02", "2026-01-01Z", "2026-01-01 ", "2026-01-01T",
            "2026-12-31T23:59:60Z", "2026-12-31T23:59:60.9+01:00", "9999-12-31T23:59:60Z",
            "2026-01-01T23:59:61Z", "2026-13-01", "2026-00-01", "2026-04-31 00:00:00 UTC",
            "2026-01-01 00:00:00 Europe/Berlin", "2026-01-01T00:00:00+0060", "2026-01-01 00:00",
            "2026-01-01T00:00:00.1234567+2359", "2026-01-01 00:00:00+2400", "2026-01-01T00:00:005Z",
        ]
    ),
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["2026-01-31", "2024-2-29", "1969-12-31", "2026-02-29", "0001-01-01"]),
            st.sampled_from(["", "T", "t", " ", "  "]),
            st.sampled_from(["", "00:00:00", "1:2:3", "23:59:60", "12:00", "24:00:00"]),
            st.sampled_from(["", ".", ".5", ".123456", ".1234567890", ",5"]),
            st.sampled_from(["", " "]),
            st.sampled_from(
                ["", "Z", "UTC", "utc", "+00", "-0000", "+5", "+05:30", "+0530", "-530"]
            ),
        ),
    ),
)  # fmt: skip
epochs = st.one_of(
    st.integers(-(10**12), 3 * 10**11).map(str),
    st.integers(-(10**15), 3 * 10**14).map(str),
    st.integers(-(10**21), 3 * 10**20).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12).map(
        str
    ),
    st.sampled_from(
        [
            "1764271170", "1764271170123", "1764271170123456", "1764271170123456789", "0", "-1",
            "1764271170.5", "1764271170.123456", "1764271170.1234569", "1.764271170123e9", "-0.5",
            "-0.0000001", "-1500.0000001", "-999", "253402300799", "253402300800", "-62135596800",
            "-62135596801", "253402300799.999999", "253402300799.9999999", "8999999999999999999",
            "9223372036854775807", "9223372036854775808", "1e18", "1e-9", "-1e-5001", "1e5001",
            "253402300799999", "253402300800000", "253402300799999999", "253402300800000000",
            "253402300799999999999", "253402300800000000000", "0.000000000000000000000001", "-0",
            "1764271170." + "9" * 40, "0" * 30 + "1764271170", "+1764271170", "1764271170.",
            ".5", "1764271170Z", "1e", "0x10", "1_000", "\u0661764271170", "", " 1764271170",
        ]
    ),
)  # fmt: skip
texts = st.one_of(
    st.text(max_size=5),
    st.sampled_from(
        [
            "",
            "a",
            "\u0000",
            "\n",
            '"',
            "\\",
            "\ud7ff",
            "😀",
            "aGk=",
            "aGk",
            "a===",
            "YQ==",
            "YR==",
            "aG k=",
        ]
    ),
)
json_text = texts.map(lambda text: json.dumps(text, ensure_ascii=False))
scalar = st.one_of(
    json_text,
    times.map(json.dumps),
    numbers,
    numbers.map(json.dumps),
    epochs,
    epochs.map(json.dumps),
    st.sampled_from(
        [
            "null",
            "true",
            "false",
            "[]",
            "{}",
            '"\\ud800"',
            '"\\ud83d\\ude00"',
            '"\\u0000"',
            "[null]",
            '["a","b"]',
            "[1]",
            "nul",
        ]
    ),
)
member = st.sampled_from(["name", "limits", "at", "more", "payer.name"])
composite = st.one_of(
    scalar,
    st.lists(scalar, max_size=3).map(lambda items: f"[{','.join(items)}]"),
    st.dictionaries(
        member,
        st.one_of(scalar, st.lists(numbers, max_size=2).map(lambda items: f"[{','.join(items)}]")),
        max_size=3,
    ).map(lambda found: "{" + ",".join(f'"{name}":{value}' for name, value in found.items()) + "}"),
)
composites = st.one_of(
    composite, st.lists(composite, max_size=2).map(lambda items: f"[{', '.join(items)}]")
)
good = {
    "transaction_id": st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).map(json.dumps),
    "event_time": st.datetimes().map(lambda time: json.dumps(time.isoformat() + "Z")),
    "amount": st.decimals(min_value=-9999, max_value=9999, places=2).flatmap(
        lambda amount: st.sampled_from([f'"{amount}"', f"{amount}"])
    ),
    "currency": st.just('"EUR"'),
}
names = [
    *(str(field["name"]) for field in WIDE),
    "currency",
    "payer_id",
    "status",
    "stranger",
    "Amount",
    "amoun\\u0074",
    "payer.more",
    "seen",
    "steps",
]


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    members = [(name, draw(values)) for name, values in good.items()]
    for name in draw(st.lists(st.sampled_from(names), max_size=4)):
        members.insert(draw(st.integers(0, len(members))), (name, draw(composites)))
    if draw(st.integers(0, 4)) == 0:
        members.pop(draw(st.integers(0, len(members) - 1)))
    gap = draw(st.sampled_from(["", " ", "\n", "\t\r\n"]))
    document = (
        f"{gap}{{"
        + f",{gap}".join(f'"{name}"{gap}:{gap}{value}' for name, value in members)
        + f"}}{gap}"
    )
    return document.encode()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    value = bytearray(draw(documents()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(value)))
        kind = draw(st.sampled_from(["insert", "delete", "replace", "truncate", "double"]))
        if kind == "insert":
            value[at:at] = draw(
                st.one_of(
                    st.binary(min_size=1, max_size=3),
                    st.sampled_from(
                        [b"\x00", b"\x80", b"\n", b"{", b"}", b'"', b",", b"\xef\xbb\xbf"]
                    ),
                )
            )
        elif kind == "delete":
            del value[at : at + draw(st.integers(1, 4))]
        elif kind == "replace":
            value[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "truncate":
            del value[at:]
        else:
            value += value[:at] or b" "
    return bytes(value)


hostile = st.one_of(
    st.none(),
    st.binary(max_size=30),
    st.sampled_from(
        [
            b"",
            b"null",
            b" null ",
            b"[]",
            b"{}",
            b"{}{}",
            b"[" * 3000,
            b'{"a":' * 1500,
            b"\xef\xbb\xbf{}",
            b'"' + b"x" * 5000 + b'"',
            b"1",
        ]
    ),
)
values = st.one_of(documents(), documents(), mutated(), hostile)


@pytest.mark.parametrize("unknown_fields", ["keep", "reject"])
@pytest.mark.parametrize("name", ["default", "wide", "mixed"])
@examples(150)
@given(st.lists(values, min_size=1, max_size=6))
@example([None, b"null", b"{}"])
@example([b"null"] * 5)
@example(
    [
        b'{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","currency":"EUR","amount":1e99999999}'
    ]
)
@example(
    [
        b'{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","currency":"EUR","amount":"1\x80"}',
        b"{}",
    ]
)
@example(
    [
        b'{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","currency":"EUR","amount":"\x80","amount":"1"}'
    ]
)
def test_the_decoder_says_what_the_slow_decoder_says(
    learning: None,
    schemas: dict[str, PaymentSchema],
    name: str,
    unknown_fields: str,
    given_values: list[bytes | None],
) -> None:
    must_agree(schemas[name], given_values, unknown_fields)


def is_json(text: str) -> bool:
    try:
        slow_decoder.parse(text.encode())
    except ValueError:
        return False
    return text != "null"


anything = st.one_of(
    composites.filter(is_json), st.sampled_from(["null", "01", '"\\ud800"', "{}{}"])
)
strange = st.sampled_from(
    ["more", "x", "payer", "at", "id", "", "payer.more", "\u00e4\U0001f600", 'a"b', "a\\b", "\t"]
)
strangers = st.dictionaries(strange, anything, max_size=2)
right = {
    "STRING": texts.map(json.dumps),
    "INT64": st.integers(-(2**63), 2**63 - 1).map(str),
    "FLOAT64": st.floats(allow_nan=False, allow_infinity=False).map(json.dumps),
    "BOOL": st.sampled_from(["true", "false"]),
    "NUMERIC": st.decimals(-(10**20) + 1, 10**20 - 1, places=9).flatmap(
        lambda number: st.sampled_from([f"{number:f}", f'"{number:f}"'])
    ),
    "TIMESTAMP": good["event_time"],
    "DATE": st.dates().map(lambda day: f'"{day.isoformat()}"'),
    "BYTES": st.sampled_from(['""', '"YQ=="', '"aGk="']),
    "JSON": composites.filter(is_json),
}
"""Of each type, values as they should be; `value_of` has the others."""


def rarely(draw: st.DrawFn) -> bool:
    return draw(st.integers(0, 79)) == 37  # 0 and 79 are drawn more often than others


def value_of(draw: st.DrawFn, field: SchemaField, depth: int) -> str:
    """One value of the field, rarely null or of another type."""
    if rarely(draw):
        return draw(st.one_of(st.just("null"), composites))
    if field.type == "RECORD":
        return an_object(draw, field.fields, depth + 1)
    return draw(right[field.type] if depth or field.name not in good else good[field.name])


def member_of(draw: st.DrawFn, field: SchemaField, depth: int) -> str | None:
    """What an object has under the field's name; None: it has none."""
    if field.mode == "REQUIRED":
        return None if rarely(draw) else value_of(draw, field, depth)
    if not draw(st.booleans()):
        return draw(st.sampled_from([None, "null"]))
    if field.mode != "REPEATED" or rarely(draw):
        return value_of(draw, field, depth)
    items = [value_of(draw, field, depth) for _ in range(draw(st.integers(0, 3 - depth)))]
    return f"[{','.join(items)}]"


def an_object(draw: st.DrawFn, fields: tuple[SchemaField, ...], depth: int = 0) -> str:
    """In the order of the schema, with fields missing, null and twice, and some of unknown name."""
    members = [
        (field.name, value)
        for field in fields
        if (value := member_of(draw, field, depth)) is not None
    ]
    if members and rarely(draw):
        name, _ = draw(st.sampled_from(members))
        members.insert(draw(st.integers(0, len(members))), (name, draw(composites)))
    if draw(st.booleans()):
        named = {field.name for field in fields}
        for name, value in draw(strangers).items():
            if name not in named:
                members.insert(draw(st.integers(0, len(members))), (name, value))
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members) + "}"


@st.composite
def nested_documents(draw: st.DrawFn, fields: tuple[SchemaField, ...]) -> bytes:
    value = bytearray(an_object(draw, fields).encode())
    if rarely(draw):
        at = draw(st.integers(0, len(value)))
        value[at : at + 1] = draw(st.binary(max_size=2))
    return bytes(value)


@pytest.mark.parametrize("unknown_fields", ["keep", "reject"])
@pytest.mark.parametrize("name", ["deep", "deep in ms"])
@examples(150)
@given(st.data())
def test_nested_fields_and_unknown_ones_at_every_depth(
    learning: None,
    schemas: dict[str, PaymentSchema],
    name: str,
    unknown_fields: str,
    data: st.DataObject,
) -> None:
    schema = schemas[name]
    given_values = data.draw(
        st.lists(st.one_of(nested_documents(schema.fields), values), min_size=1, max_size=6)
    )
    must_agree(schema, given_values, unknown_fields)


@st.composite
def timed(draw: st.DrawFn) -> bytes:
    """A payment with times of many forms, which are most of what can be wrong with it."""
    time = st.one_of(
        times.map(json.dumps), epochs, epochs.map(json.dumps), st.sampled_from(["null", "true"])
    )
    members = {
        "transaction_id": '"a"',
        "event_time": draw(st.one_of(time, good["event_time"])),
        "amount": "1",
        **draw(st.dictionaries(st.sampled_from(["seen"]), time, max_size=1)),
        **draw(st.dictionaries(st.just("steps"), time.map('[{{"at":{}}}]'.format), max_size=1)),
    }
    return ("{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}").encode()


@pytest.mark.parametrize("name", ["wide", "mixed", *EPOCH_UNITS])
@examples(150)
@given(st.lists(timed(), min_size=1, max_size=8))
def test_times_in_text_and_in_numbers_are_read_as_the_slow_decoder_reads_them(
    schemas: dict[str, PaymentSchema], name: str, given_values: list[bytes | None]
) -> None:
    must_agree(schemas[name], given_values, "keep")


def test_money_is_exact_from_a_string_and_from_a_number(schemas: dict[str, PaymentSchema]) -> None:
    base = (
        b'{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","currency":"EUR","amount":%s}'
    )
    for text in (
        b"99999999999999999999.999999999",
        b"0.1",
        b"-0.000000001",
        b"1e-9",
        b"12345678901234567890.123456789",
    ):
        for written in (text, b'"' + text + b'"'):
            value: list[bytes | None] = [base % written]
            ((_, row),) = found(decode(Decoder(schemas["default"]), value), value)
            assert row["amount"] == Decimal(text.decode())
