"""The decoding rules written down a second time, slowly: the standard library's JSON parser,
fractions, and one function per type.
"""

from __future__ import annotations

import base64
import binascii
import calendar
import json
import math
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
    row = read_object(fields, parsed, problems, unknown, top=True)
    if problems:
        return "rejected", min(problems, key=ORDER.index)
    if unknown and reject_unknown:
        return "rejected", "unknown_field"
    row["unknown_fields"] = unknown or None
    return "payment", row


def read_object(
    fields: tuple[SchemaField, ...],
    parsed: dict[str, Any],
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
                strangers = []
                for item in value:
                    if item is None:
                        raise Wrong("wrong_type")
                    within: dict[str, Any] = {}
                    row[field.column].append(read(field, item, nested, within, False))
                    strangers.append(within or None)
                    if nested:
                        raise Wrong(min(nested, key=ORDER.index))
                if strangers != [None] * len(strangers):
                    unknown[field.name] = strangers
            else:
                within = {}
                row[field.column] = read(field, value, nested, within, top)
                if within:
                    unknown[field.name] = within
                if nested:
                    raise Wrong(min(nested, key=ORDER.index))
        except Wrong as wrong:
            problems.append(str(wrong))
    named = {field.name for field in fields}
    unknown.update({name: value for name, value in parsed.items() if name not in named})
    return row


def read(
    field: SchemaField,
    value: Any,
    problems: list[str],
    unknown: dict[str, Any],
    top: bool,
) -> Any:
    if field.type == "RECORD":
        if not isinstance(value, dict):
            raise Wrong("wrong_type")
        return read_object(field.fields, value, problems, unknown)
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
    if field.type == "TIMESTAMP" and field.epoch_unit is not None and isinstance(value, str):
        match = NUMBER.fullmatch(value)
        if match and (match[2] or match[3]):
            return epoch(match, field.epoch_unit)
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


def epoch(match: re.Match[str], unit: str) -> int:
    digits = int((match[2] or "") + (match[3] or ""))
    exponent = int(match[4] or 0) - len(match[3] or "")
    if not digits:
        return 0
    if abs(exponent) > 5000:
        if exponent > 0:
            raise Wrong("out_of_range")
        return -1 if match[1] == "-" else 0
    exact = Fraction(digits) * Fraction(10) ** exponent * (-1 if match[1] == "-" else 1)
    per_unit = {
        "s": Fraction(1_000_000),
        "ms": Fraction(1000),
        "us": Fraction(1),
        "ns": Fraction(1, 1000),
    }
    return _in_range(math.floor(exact * per_unit[unit]))


class Scanner:
    """Reads a text from its beginning."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def number(self, least: int, most: int) -> int:
        """As many digits as there are, of ASCII; their number is limited."""
        count = 0
        while self.rest[count : count + 1] in tuple("0123456789"):
            count += 1
        if not least <= count <= most:
            raise Wrong("wrong_type")
        found, self.rest = self.rest[:count], self.rest[count:]
        return int(found)

    def letter(self, *allowed: str) -> str:
        """The first of the letters that comes next; empty if none does."""
        for letter in allowed:
            if self.rest.startswith(letter):
                self.rest = self.rest[len(letter) :]
                return letter
        return ""

    def must(self, *allowed: str) -> str:
        found = self.letter(*allowed)
        if not found:
            raise Wrong("wrong_type")
        return found


def microseconds(text: str) -> int:
    scanner = Scanner(text)
    year = scanner.number(4, 4)
    scanner.must("-")
    month = scanner.number(1, 2)
    scanner.must("-")
    day = scanner.number(1, 2)
    hour = minute = second = 0
    fraction = ""
    if scanner.rest[:1] in ("T", "t") or (scanner.rest[:1] == " " and scanner.rest[1:2].isdigit()):
        scanner.must("T", "t", " ")
        hour = scanner.number(1, 2)
        scanner.must(":")
        minute = scanner.number(1, 2)
        scanner.must(":")
        second = scanner.number(1, 2)
        if scanner.letter("."):
            before = scanner.rest
            scanner.number(1, 5000)
            fraction = before[: len(before) - len(scanner.rest)]
    scanner.letter(" ")
    offset_hours, offset_minutes, sign = 0, 0, ""
    if scanner.rest.upper() in ("Z", "UTC"):
        scanner.rest = ""
    elif scanner.rest:
        sign = scanner.must("+", "-")
        if len(scanner.rest) == 4 and ":" not in scanner.rest:
            together = scanner.number(4, 4)
            offset_hours, offset_minutes = divmod(together, 100)
        else:
            offset_hours = scanner.number(1, 2)
            if scanner.letter(":"):
                offset_minutes = scanner.number(1, 2)
    if scanner.rest:
        raise Wrong("wrong_type")
    if not (
        year >= 1 and 1 <= month <= 12 and 1 <= day <= calendar.monthrange(max(year, 1), month)[1]
    ):
        raise Wrong("out_of_range")
    if hour > 23 or minute > 59 or second > 60 or offset_hours > 23 or offset_minutes > 59:
        raise Wrong("out_of_range")
    days = (year - 1) * 365 + (year - 1) // 4 - (year - 1) // 100 + (year - 1) // 400 - 719_162
    days += sum(calendar.monthrange(year, before)[1] for before in range(1, month)) + day - 1
    offset = (offset_hours * 60 + offset_minutes) * (-1 if sign == "-" else 1)
    behind_the_point = 0 if second == 60 else int(fraction[:6].ljust(6, "0"))
    return _in_range(
        (days * 86_400 + hour * 3600 + (minute - offset) * 60 + second) * 1_000_000
        + behind_the_point
    )


def _in_range(micros: int) -> int:
    if not -62_135_596_800_000_000 <= micros <= 253_402_300_799_999_999:
        raise Wrong("out_of_range")
    return micros
