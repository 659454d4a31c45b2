"""One JSON value of a message as one value of a column: the rule, one value at a time.

columns.py has the same rule for whole columns.
"""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec.json import Decoder as JsonDecoder

from transforms.decode.rejection import Rejected, quoted
from transforms.decode.time_values import read_time
from transforms.model.rejected import MISSING_FIELD, OUT_OF_RANGE, REASONS, WRONG_TYPE
from transforms.model.schema import DEDUP_COLUMN, SchemaField

AMOUNT_LIMIT: Final = Decimal(10) ** 20
"""Amounts must be below this, so that their sums in the control totals fit NUMERIC.

NUMERIC has 29 digits before the point:
https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#decimal_types.
"""

_NUMERIC_LIMIT: Final = Decimal(10) ** 29
_NANO: Final = Decimal("1e-9")
_NUMBER: Final = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_EXACT: Final = decimal.Context(prec=60, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])
_STRING: Final = JsonDecoder(str)
_TYPED: Final[dict[str, Any]] = {
    "INT64": JsonDecoder(int),
    "FLOAT64": JsonDecoder(float),
    "BOOL": JsonDecoder(bool),
    "BYTES": JsonDecoder(bytes),
}
_OBJECT: Final = JsonDecoder(dict[str, msgspec.Raw])
_ARRAY: Final = JsonDecoder(list[msgspec.Raw])
_MAX_INT64: Final = (1 << 63) - 1


def read_field(field: SchemaField, raw: bytes, path: str, amount: bool) -> Any:
    """The column's value of valid JSON `raw`; None for null. Raises Rejected naming `path`.

    amount: the stricter limit of the amount column.
    """
    if raw == b"null":
        if field.mode == "REQUIRED":
            raise Rejected(MISSING_FIELD, f"{path}: is null, but REQUIRED")
        return [] if field.mode == "REPEATED" else None
    if field.mode == "REPEATED":
        if raw[:1] != b"[":
            raise Rejected(WRONG_TYPE, f"{path}: must be an array")
        return _read_array(field, raw, path)
    return _read_value(field, raw, path, amount)


def read_record(
    fields: tuple[SchemaField, ...],
    members: dict[str, msgspec.Raw],
    path: str,
    amount: str | None,
) -> dict[str, Any]:
    """Columns of one JSON object.

    Raises Rejected with the first reason, in the order of REASONS, of all its fields. amount: the
    name of the amount column, None within a RECORD.
    """
    row: dict[str, Any] = {}
    problems: list[Rejected] = []
    for field in fields:
        where = f"{path}{field.name}"
        try:
            if field.name in members:
                row[field.column] = read_field(
                    field, bytes(members[field.name]), where, field.column == amount
                )
            elif field.mode == "REQUIRED":
                raise Rejected(MISSING_FIELD, f"{where}: is missing, but REQUIRED")
            else:
                row[field.column] = [] if field.mode == "REPEATED" else None
        except Rejected as problem:
            problems.append(problem)
    if problems:
        raise min(problems, key=lambda problem: REASONS.index(problem.reason))
    return row


def _read_array(field: SchemaField, raw: bytes, path: str) -> list[Any]:
    values: list[Any] = []
    for index, item in enumerate(_ARRAY.decode(raw)):
        where = f"{path}[{index}]"
        if bytes(item) == b"null":
            raise Rejected(WRONG_TYPE, f"{where}: an array of BigQuery holds no null")
        values.append(_read_value(field, bytes(item), where, False))
    return values


def _read_value(field: SchemaField, raw: bytes, path: str, amount: bool) -> Any:
    if field.type == "RECORD":
        if raw[:1] != b"{":
            raise Rejected(WRONG_TYPE, f"{path}: must be an object")
        return read_record(field.fields, _OBJECT.decode(raw), f"{path}.", None)
    if field.type == "JSON":
        return raw.decode()
    if field.type == "NUMERIC":
        return _read_numeric(raw, path, amount)
    if field.type == "STRING":
        return _read_text(field, raw, path)
    if field.type in ("TIMESTAMP", "DATE"):
        return read_time(field, raw, path)
    return _read_typed(field, raw, path, amount)


def _read_text(field: SchemaField, raw: bytes, path: str) -> str:
    if raw[:1] != b'"':
        raise Rejected(WRONG_TYPE, f"{path}: must be a string ({field.type})")
    text: str = _STRING.decode(raw)
    if not text and path == field.name and field.column == DEDUP_COLUMN:
        raise Rejected(MISSING_FIELD, f"{path}: is empty")
    return text


def _read_numeric(raw: bytes, path: str, amount: bool) -> Decimal:
    """Exact, from a JSON string or a JSON number.

    A value with more digits than the type holds is out of range, never rounded.
    """
    if raw[:1] not in b'"-0123456789':
        raise Rejected(WRONG_TYPE, f"{path}: must be a number or a string with one")
    text = _STRING.decode(raw) if raw[:1] == b'"' else raw.decode()
    if not _NUMBER.fullmatch(text):
        raise Rejected(WRONG_TYPE, f"{path}: {quoted(text)} is not a decimal number")
    value = _EXACT.create_decimal(text) if len(text) <= 60 else _long_number(text)
    limit = AMOUNT_LIMIT if amount else _NUMERIC_LIMIT
    # copy_abs, since abs() would raise Overflow in the thread's own context.
    if not value.is_finite() or value.copy_abs() >= limit:
        raise Rejected(
            OUT_OF_RANGE,
            f"{path}: {quoted(text)} is not below"
            f" {'10^20, the limit of an amount' if amount else '10^29'}",
        )
    rounded = value.quantize(_NANO, context=_EXACT)
    # Decimal has turned a number with an exponent below its least one into 0 already.
    if rounded != value or (not value and not _is_zero(text)):
        raise Rejected(
            OUT_OF_RANGE, f"{path}: {quoted(text)} has more than 9 digits after the point"
        )
    return rounded


def _long_number(text: str) -> Decimal:
    """Exact also for more than 60 characters, most of which may be zeros."""
    return decimal.Context(
        prec=len(text), Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[]
    ).create_decimal(text)


def _is_zero(text: str) -> bool:
    return not any(digit in "123456789" for digit in text.lower().partition("e")[0])


def _read_typed(field: SchemaField, raw: bytes, path: str, amount: bool) -> Any:
    is_number = field.type in ("INT64", "FLOAT64")
    if is_number and raw[:1] not in b"-0123456789":
        raise Rejected(WRONG_TYPE, f"{path}: must be a number ({field.type})")
    if field.type == "INT64" and any(mark in raw for mark in b".eE"):
        raise Rejected(WRONG_TYPE, f"{path}: must be an integer, without point or exponent")
    try:
        value = (
            int(raw) if field.type == "INT64" and len(raw) <= 40 else _TYPED[field.type].decode(raw)
        )
    except msgspec.DecodeError as error:
        reason = OUT_OF_RANGE if is_number else WRONG_TYPE
        raise Rejected(reason, f"{path}: is not a {field.type} ({error})") from error
    if field.type == "INT64" and not -_MAX_INT64 - 1 <= value <= _MAX_INT64:
        raise Rejected(OUT_OF_RANGE, f"{path}: {quoted(raw.decode())} does not fit INT64")
    return value
