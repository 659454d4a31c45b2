"""One JSON value as a TIMESTAMP or a DATE, and what to do about one that is neither."""

from __future__ import annotations

from datetime import date
from typing import Final

from msgspec.json import Decoder as JsonDecoder

from transforms.decode.epochs import is_number, parse_epoch
from transforms.decode.rejection import Rejected, quoted, shortened
from transforms.decode.timestamps import NotATime, TimeOutOfRange, parse_date, parse_timestamp
from transforms.model.moments import moment_in_words
from transforms.model.rejected import OUT_OF_RANGE, WRONG_TYPE
from transforms.model.schema import EPOCH_UNITS, SchemaField

_STRING: Final = JsonDecoder(str)
_LIKELY_US: Final = (631_152_000_000_000, 4_102_444_800_000_000)
"""1990 to 2100: a number that lies there with one unit, and with no other, was meant so."""


def read_time(field: SchemaField, raw: bytes, path: str) -> int | date:
    """Microseconds since 1970 of a TIMESTAMP, or the date of a DATE.

    raw: valid JSON, not null. Raises Rejected naming `path`.
    """
    is_text = raw[:1] == b'"'
    text = _STRING.decode(raw) if is_text else raw.decode()
    shown = quoted(text) if is_text else shortened(text)
    try:
        if field.type == "DATE":
            return parse_date(text if is_text else "")
        if field.epoch_unit is not None and is_number(text):
            return parse_epoch(text, field.epoch_unit)
        return parse_timestamp(text if is_text else "")
    except NotATime as error:
        detail = (
            f'{shown} is not a date such as "2026-11-27"'
            if field.type == "DATE"
            else f"{shown} is a number, and its unit is not known; {_unit_for(text)}"
            if is_number(text)
            else f"{shown} is not a time of RFC 3339 or BigQuery, such as"
            ' "2026-11-27T19:30:00.5+01:00"'
        )
        raise Rejected(WRONG_TYPE, f"{path}: {detail}") from error
    except TimeOutOfRange as error:
        by_unit = f" {field.epoch_unit} since 1970" if is_number(text) else ""
        hint = f"; {_unit_for(text)}" if by_unit and _likely(text) else ""
        raise Rejected(OUT_OF_RANGE, f"{path}: {shown}{by_unit} {error}{hint}") from error


def _unit_for(number: str) -> str:
    found = _likely(number)
    return (
        f"--epoch_unit={found[0]}, or epochUnit in the schema file, would make it"
        f" {moment_in_words(found[1])}"
        if found
        else f"--epoch_unit={'|'.join(EPOCH_UNITS)}, or epochUnit in the schema file, says it"
    )


def _likely(number: str) -> tuple[str, int] | None:
    for unit in EPOCH_UNITS:
        try:
            micros = parse_epoch(number, unit)
        except TimeOutOfRange:
            continue
        if _LIKELY_US[0] <= micros <= _LIKELY_US[1]:
            return unit, micros
    return None
