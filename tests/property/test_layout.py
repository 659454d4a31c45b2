"""Messages of one layout, and messages that nearly have it, against the slow decoder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.options.schema_file import load_schema
from tests.property.both_decoders import must_agree
from tests.property.test_decode import (
    WIDE,
    documents,
    epochs,
    good,
    json_text,
    mutated,
    numbers,
    scalar,
    times,
)
from tests.support.examples import examples
from transforms.decode import layout_reader
from transforms.decode.layout import layout_of
from transforms.model.schema import ARROW_TYPES, PaymentSchema

_TEXT = json_text | st.text("aä€😀 {}[]:,.-0129'/", max_size=9).map(lambda text: f'"{text}"')
_TIME = st.one_of(good["event_time"], times.map(json.dumps), epochs, epochs.map(json.dumps))
_VALUES: dict[str, st.SearchStrategy[str]] = {
    "transaction_id": _TEXT,
    "event_time": _TIME,
    "amount": st.one_of(numbers, numbers.map(json.dumps)),
    "currency": _TEXT,
    "payer_id": _TEXT,
    "fee": st.one_of(numbers, numbers.map(json.dumps)),
    "count": numbers,
    "paid": st.sampled_from(["true", "false"]),
    "day": st.dates().map(lambda day: f'"{day.isoformat()}"'),
    "seen": _TIME,
    "score": numbers,
    "stranger": _TEXT,
}
_MARKS = b'"\\,:{}[] .0-eE\x00\n\x7f\x80\xc3\xa4'


@pytest.fixture(scope="module", autouse=True)
def _few_are_enough() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout_reader, "_LEAST", 1)
        yield


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PaymentSchema]:
    file = Path(tmp_path_factory.mktemp("schema"), "wide.json")
    # With another field the messages of `layouts` would have no layout that can be learned.
    file.write_text(json.dumps([*WIDE, {"name": "currency", "type": "STRING"}]))
    return {
        "default": load_schema(None),
        "wide": load_schema(str(file)),
        "ms": load_schema(str(file), epoch_unit="ms"),
        "s": load_schema(str(file), epoch_unit="s"),
    }


@st.composite
def layouts(draw: st.DrawFn) -> list[tuple[str, bool, str]]:
    """Of each member its name, whether it is null in all messages, and a space or none."""
    more = [name for name in _VALUES if name not in good]
    found = [*good, *draw(st.lists(st.sampled_from(more), max_size=5, unique=True))]
    return [
        (name, name not in good and draw(st.integers(0, 5)) == 0, draw(st.sampled_from(["", " "])))
        for name in draw(st.permutations(found))
    ]


@st.composite
def message(draw: st.DrawFn, layout: list[tuple[str, bool, str]], odd: bool) -> bytes:
    """odd: its values may be of any form."""
    members = []
    for name, is_null, gap in layout:
        value = "null"
        if not is_null:
            usual: Any = good.get(name, _VALUES[name])
            strange = odd and draw(st.integers(0, 5)) == 0
            value = draw(st.one_of(_VALUES[name], scalar) if strange else usual)
        members.append(f'"{name}"{gap}:{gap}{value}')
    return ("{" + ",".join(members) + "}").encode()


@st.composite
def nearly(draw: st.DrawFn, clean: list[bytes]) -> bytes:
    """One of the messages with a few bytes changed, or cut and continued by another."""
    value = bytearray(draw(st.sampled_from(clean)))
    for _ in range(draw(st.integers(1, 2))):
        # The last value is held against the end of the message, and none other is.
        at = draw(st.integers(0, len(value)) | st.integers(max(0, len(value) - 9), len(value)))
        mark = draw(
            st.sampled_from([b'"', b"\\", b" "])
            | st.sampled_from(_MARKS).map(lambda byte: bytes([byte]))
            | st.binary(max_size=2)
        )
        kind = draw(st.sampled_from(["insert", "replace", "delete", "go on"]))
        if kind == "insert":
            value[at:at] = mark
        elif kind == "replace":
            value[at : at + 1] = mark
        elif kind == "delete":
            del value[at : at + draw(st.integers(1, 3))]
        else:
            value[at:] = draw(st.sampled_from(clean))[at:]
    return bytes(value)


@pytest.mark.parametrize("unknown_fields", ["keep", "reject"])
@pytest.mark.parametrize("name", ["default", "wide", "ms", "s"])
@examples(80)
@given(st.data())
def test_what_is_laid_out_as_messages_before_it_has_the_verdict_of_the_slow_decoder(
    schemas: dict[str, PaymentSchema], name: str, unknown_fields: str, data: st.DataObject
) -> None:
    clean: list[bytes] = []
    for layout in data.draw(st.lists(layouts(), min_size=1, max_size=2)):
        clean += data.draw(st.lists(message(layout, odd=False), min_size=1, max_size=3))
    given_values: list[bytes | None] = [
        *data.draw(st.lists(st.sampled_from(clean) | nearly(clean), max_size=6)),
        *data.draw(st.lists(message(layout, odd=True) | documents() | mutated(), max_size=3)),
        *data.draw(st.lists(st.none(), max_size=1)),
    ]
    order = data.draw(st.permutations(range(len(given_values))))
    must_agree(
        schemas[name],
        [given_values[place] for place in order],
        unknown_fields,
        seen=[[*clean]],
    )


def changed(message: bytes, first: int = 0) -> Iterator[bytes]:
    """The message with one byte more, one less, and another one, at each place from `first` on."""
    for at in range(first, len(message)):
        yield message[:at] + message[at + 1 :]
        for mark in (bytes([byte]) for byte in _MARKS + b"9T"):
            yield message[:at] + mark + message[at:]
            yield message[:at] + mark + message[at + 1 :]


def test_the_schemas_of_these_tests_have_layouts(schemas: dict[str, PaymentSchema]) -> None:
    message = (
        b'{"transaction_id":"a","event_time":"2000-01-01T00:00:00Z","amount":1,"currency":"EUR"%s}'
    )
    for name, schema in schemas.items():
        assert layout_of(message % b"", schema.fields)
        more = b',"count":5,"paid":true,"day":"2000-01-01","seen":"2000-01-01","fee":"1"'
        assert (layout_of(message % more, schema.fields) is None) == (name == "default")


@pytest.mark.parametrize("mode", ["NULLABLE", "REPEATED"])
@pytest.mark.parametrize("kind", [*ARROW_TYPES, "RECORD"])
def test_a_field_that_is_missing_or_null_is_of_any_type(
    tmp_path: Path, kind: str, mode: str
) -> None:
    more: dict[str, Any] = {"name": "more", "type": kind, "mode": mode}
    if kind == "RECORD":
        more["fields"] = [{"name": "at", "type": "TIMESTAMP"}]
    file = tmp_path / "schema.json"
    file.write_text(json.dumps([*WIDE[:3], more]))
    schema = load_schema(str(file))
    message = b'{"transaction_id":"a","event_time":"2000-01-01T00:00:00Z","amount":1%s}'
    seen: list[bytes | None] = [message % b"", message % b',"more":null']
    must_agree(schema, seen, seen=[seen])
    must_agree(schema, [seen[0]], seen=[seen])
    value = {"BOOL": b"true", "INT64": b"7", "NUMERIC": b"7", "DATE": b'"2000-01-01"'}
    given: list[bytes | None] = [
        *seen,
        message % b',"more":%s' % value.get(kind, b'"2000-01-01T00:00:00Z"'),
        message % b',"more":[%s]' % value.get(kind, b'"2000-01-01T00:00:00Z"'),
        message % b',"more":{}',
    ]
    must_agree(schema, given, seen=[seen])
    must_agree(schema, given, seen=[given])


@pytest.mark.parametrize(
    "message",
    [
        b'{"transaction_id":"a1","event_time":"2000-01-01T00:00:00Z","amount":"5","currency":"EUR"}',
        b'{"amount":-10.5,"event_time":"2000-01-01T00:00:00.25Z","transaction_id":"b","currency":"E"}',
        b'{ "payer_id": null, "event_time": "2000-01-01T00:00:00+01:00", "currency": "\xc3\xa4",'
        b' "transaction_id": "c", "amount": 0 }',
        b'{"transaction_id":"d","event_time":"2000-01-01","currency":"EUR","amount":7}',
    ],
)
def test_a_message_with_one_byte_changed_has_the_verdict_of_the_slow_decoder(
    schemas: dict[str, PaymentSchema], message: bytes
) -> None:
    must_agree(schemas["default"], [*changed(message)], seen=[[message]])


def test_a_time_with_one_byte_changed_among_no_others(schemas: dict[str, PaymentSchema]) -> None:
    message = (
        b'{"transaction_id":"a","currency":"E","amount":1,"event_time":"2000-01-01T00:00:00Z"}'
    )
    for value in changed(message, message.index(b"2000")):
        must_agree(schemas["default"], [value], seen=[[message]])
