"""The decoder and the slow, obvious one, on the same values."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pyarrow as pa

from tests.property import slow_decoder
from transforms.decode.decoder import Decoder
from transforms.model.elements import DecodedBlock, RawBlock
from transforms.model.schema import PaymentSchema, SchemaField
from transforms.model.tables import SOURCE_COLUMNS

LIMIT = 4096


def decode(decoder: Decoder, given_values: list[bytes | None]) -> DecodedBlock:
    offsets = list(range(len(given_values)))
    return decoder.decode(RawBlock("t", 0, offsets, [0] * len(offsets), given_values))


def found(decoded: DecodedBlock, given_values: list[bytes | None]) -> list[tuple[str, Any]]:
    answers: dict[int, tuple[str, Any]] = {}
    for row in decoded.payments.to_pylist():
        offset = row["kafka_offset"]
        assert offset not in answers
        answers[offset] = (
            "payment",
            {name: value for name, value in row.items() if not name.startswith("kafka_")},
        )
    for row in decoded.rejected.to_pylist():
        offset = row["kafka_offset"]
        assert offset not in answers
        original = given_values[offset]
        assert row["payload"] == (original if original is None else original[:LIMIT])
        assert row["detail"]
        answers[offset] = ("rejected", row["reason"])
    return [answers[offset] for offset in range(len(given_values))]


def canonical(value: Any, kind: str) -> Any:
    """A column's value in the slow decoder's form."""
    if value is None:
        return None
    if kind == "NUMERIC":
        return Fraction(value)
    if kind == "TIMESTAMP":
        return pa.scalar(value, pa.timestamp("us", tz="UTC")).cast(pa.int64()).as_py()
    if kind == "DATE":
        return pa.scalar(value, pa.date32()).cast(pa.int32()).as_py()
    return slow_decoder.parse(value.encode()) if kind == "JSON" else value


def canonical_row(fields: tuple[SchemaField, ...], row: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for field in fields:
        value = row[field.column]
        if value is None:
            result[field.column] = None
        elif field.mode == "REPEATED":
            result[field.column] = [_canonical_one(field, item) for item in value]
        else:
            result[field.column] = _canonical_one(field, value)
    return result


def _canonical_one(field: SchemaField, value: Any) -> Any:
    return (
        canonical_row(field.fields, value)
        if field.type == "RECORD"
        else canonical(value, field.type)
    )


def must_agree(
    schema: PaymentSchema,
    given_values: list[bytes | None],
    unknown_fields: str = "keep",
    seen: Sequence[list[bytes | None]] = (),
) -> None:
    """seen: what the decoder has read before, and may have learned from."""
    decoder = Decoder(schema, unknown_fields=unknown_fields, max_record_bytes=LIMIT)
    for values in seen:
        decode(decoder, values)
    decoded = decode(decoder, given_values)
    answers = found(decoded, given_values)
    for value, (kind, answer) in zip(given_values, answers, strict=True):
        expected_kind, expected = slow_decoder.decode(
            schema.fields, value, LIMIT, unknown_fields == "reject"
        )
        assert (kind, answer if kind == "rejected" else None) == (
            expected_kind,
            expected if expected_kind == "rejected" else None,
        ), value
        if kind == "payment":
            row = {
                **canonical_row(schema.fields, answer),
                "unknown_fields": canonical(answer["unknown_fields"], "JSON"),
            }
            assert row == expected, value
    # The slow way alone says the same as both ways together, to the letter.
    judged = [decoder.rule.judge(value) for value in given_values]
    assert [row.reason or "payment" for row in judged] == [
        answer if kind == "rejected" else kind for kind, answer in answers
    ]
    decoded.payments.validate(full=True)
    columns = decoded.payments.schema.names[: -len(SOURCE_COLUMNS)]
    by_rule = pa.RecordBatch.from_pylist(
        [row.row for row in judged if row.row is not None],
        schema=pa.schema([decoded.payments.schema.field(name) for name in columns]),
    )
    assert decoded.payments.select(columns).equals(by_rule)
    # So does a decoder that has seen the values before.
    again = decode(decoder, given_values)
    assert again.payments.equals(decoded.payments) and again.rejected.equals(decoded.rejected)
