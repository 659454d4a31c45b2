"""The decoding rules written down a second time, slowly: the standard library's JSON parser,
fractions, and one function per type.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import json
import re
from fractions import Fraction
from typing import Any

from transforms.model.schema import SchemaField

ORDER = [
    "null_value",
    "too_large",
    "invalid_json",
    "missing_field",
    "wrong_type",
    "out_of_range",
    "unknown_field",
]
NUMBER = re.compile(r"([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d+))?", re.ASCII)
TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))? ?(?:([Zz])|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)


class Number(str):
    """A JSON number as it was written."""


class Wrong(Exception):
    pass


def parse(value: bytes) -> Any:
    """Raises ValueError or RecursionError for what is not one JSON document in UTF-8."""
    text = value.decode("utf-8")
    if text.startswith("\ufeff"):
        raise ValueError("byte order mark")
    decoder = json.JSONDecoder(
        object_pairs_hook=_object, parse_int=Number, parse_float=Number, parse_constant=_no_constant
    )
    return _characters_only(decoder.decode(text))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(_characters_only(pairs))


def _characters_only(value: Any) -> Any:
    """Raises ValueError for a lone surrogate, which is no character, also in a key or value that a
    later one of the same name replaces.
    """
    json.dumps(value, ensure_ascii=False).encode()
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def decode(
    fields: tuple[SchemaField, ...], value: bytes | None, limit: int, reject_unknown: bool
) -> tuple[str, Any]:
    """("payment", row) or ("rejected", reason). Money and other NUMERICs are Fractions, times
    microseconds.
    """
    if value is None:
        return "rejected", "null_value"
    if len(value) > limit:
        return "rejected", "too_large"
    try:
        parsed = parse(value)
        if not isinstance(parsed, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError):
        return "rejected", "invalid_json"
    problems: list[str] = []
    unknown: dict[str, Any] = {}
    row = read_object(fields, parsed, "", problems, unknown, top=True)
    if problems:
        return "rejected", min(problems, key=ORDER.index)
    if unknown and reject_unknown:
        return "rejected", "unknown_field"
    row["unknown_fields"] = unknown or None
    return "payment", row


def read_object(
    fields: tuple[SchemaField, ...],
    parsed: dict[str, Any],
    path: str,
    problems: list[str],
    unknown: dict[str, Any],
    top: bool = False,
) -> dict[str, Any]:
    row = {}
    for field in fields:
        value = parsed.get(field.name)
        row[field.column] = None
        if value is None:
            if field.mode == "REQUIRED":
                problems.append("missing_field")
            elif field.mode == "REPEATED":
                row[field.column] = []
            continue
        nested: list[str] = []
        try:
            if field.mode == "REPEATED":
                if not isinstance(value, list):
                    raise Wrong("wrong_type")
                row[field.column] = []
                for index, item in enumerate(value):
                    if item is None:
                        raise Wrong("wrong_type")
                    row[field.column].append(
                        read(field, item, f"{path}{field.name}[{index}]", nested, unknown, False)
                    )
                    if nested:
                        raise Wrong(min(nested, key=ORDER.index))
            else:
                row[field.column] = read(field, value, f"{path}{field.name}", nested, unknown, top)
                if nested:
                    raise Wrong(min(nested, key=ORDER.index))
        except Wrong as wrong:
            problems.append(str(wrong))
    named = {field.name for field in fields}
    unknown.update({f"{path}{name}": value for name, value in parsed.items() if name not in named})
    return row


def read(
    field: SchemaField,
    value: Any,
    path: str,
    problems: list[str],
    unknown: dict[str, Any],
    top: bool,
) -> Any:
    if field.type == "RECORD":
        if not isinstance(value, dict):
            raise Wrong("wrong_type")
        return read_object(field.fields, value, f"{path}.", problems, unknown)
    if field.type == "JSON":
        return value
    is_text = isinstance(value, str) and not isinstance(value, Number)
    if field.type == "NUMERIC":
        return numeric(value, 20 if top and field.column == "amount" else 29)
    if field.type in ("INT64", "FLOAT64"):
        if not isinstance(value, Number):
            raise Wrong("wrong_type")
        return int64(value) if field.type == "INT64" else float64(value)
    if field.type == "BOOL":
        if not isinstance(value, bool):
            raise Wrong("wrong_type")
        return value
    if not is_text:
        raise Wrong("wrong_type")
    if field.type == "STRING":
        if top and field.column == "transaction_id" and not value:
            raise Wrong("missing_field")
        return value
    if field.type == "BYTES":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise Wrong("wrong_type") from None
    return microseconds(
        value
        if field.type == "TIMESTAMP"
        else value + "T00:00:00"
        if len(value) == 10
        else "no date"
    ) // (1 if field.type == "TIMESTAMP" else 86_400_000_000)


def int64(text: str) -> int:
    if not re.fullmatch(r"-?\d+", text, re.ASCII):
        raise Wrong("wrong_type")
    if len(text) > 25 or not -(2**63) <= int(text) < 2**63:
        raise Wrong("out_of_range")
    return int(text)


def float64(text: str) -> float:
    if float(text) in (float("inf"), float("-inf")):
        raise Wrong("out_of_range")
    return float(text)


def numeric(value: Any, integer_digits: int) -> Fraction:
    match = NUMBER.fullmatch(value) if isinstance(value, str) else None
    if not match or not (match[2] or match[3]):
        raise Wrong("wrong_type")
    digits = int((match[2] or "") + (match[3] or ""))
    exponent = int(match[4] or 0) - len(match[3] or "")
    if digits and abs(exponent) > 5000:
        raise Wrong("out_of_range")
    exact = Fraction(digits) * Fraction(10) ** (exponent if digits else 0)
    if exact >= 10**integer_digits or (exact * 10**9).denominator != 1:
        raise Wrong("out_of_range")
    return -exact if match[1] == "-" else exact


def microseconds(text: str) -> int:
    match = TIME.fullmatch(text)
    if not match:
        raise Wrong("wrong_type")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    if not (
        year >= 1 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(max(year, 1), month)[1]
    ):
        raise Wrong("out_of_range")
    if hour > 23 or minute > 59 or second > 59:
        raise Wrong("out_of_range")
    days = (year - 1) * 365 + (year - 1) // 4 - (year - 1) // 100 + (year - 1) // 400 - 719_162
    days += sum(calendar.monthrange(year, before)[1] for before in range(1, month)) + day - 1
    offset = 0
    if match[9]:
        if int(match[10]) > 23 or int(match[11]) > 59:
            raise Wrong("out_of_range")
        offset = (int(match[10]) * 60 + int(match[11])) * (1 if match[9] == "+" else -1)
    fraction = int((match[7] or "")[:6].ljust(6, "0"))
    found = (days * 86_400 + hour * 3600 + (minute - offset) * 60 + second) * 1_000_000 + fraction
    if not -62_135_596_800_000_000 <= found <= 253_402_300_799_999_999:
        raise Wrong("out_of_range")
    return found
