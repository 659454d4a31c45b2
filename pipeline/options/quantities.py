"""Durations, days, sizes and numbers of the command line: 1h, 90s, 2026-06-01, 8MiB, 0.02."""

from __future__ import annotations

import re
from datetime import date
from typing import Final

from transforms.model.errors import UsageError

_SECOND_US: Final = 1_000_000
_UNITS: Final = {
    "ms": 1000,
    "s": _SECOND_US,
    "m": 60 * _SECOND_US,
    "h": 3600 * _SECOND_US,
    "d": 86_400 * _SECOND_US,
}
_DURATION: Final = re.compile(r"(?:\d+(?:ms|s|m|h|d))+", re.ASCII)
_PART: Final = re.compile(r"(\d+)(ms|s|m|h|d)", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_SIZE: Final = re.compile(r"(\d+)(B|KiB|MiB|GiB)?", re.ASCII)
_SIZES: Final = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def parse_duration(flag: str, text: str, least_us: int = 0, word: str | None = None) -> int:
    """Microseconds. word: what the flag takes beside durations. Raises UsageError naming both."""
    if not _DURATION.fullmatch(text):
        raise UsageError(
            f"--{flag}={text}: not a duration. Write a whole number and a unit of ms, s, m, h, d,"
            f" such as 90s or 1h30m{f', or {word}' if word else ''}."
        )
    micros = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if micros < least_us:
        raise UsageError(
            f"--{flag}={text}: at least {format_duration(least_us)} is needed. Give a longer"
            " duration."
        )
    if micros > 36_500 * _UNITS["d"]:
        raise UsageError(f"--{flag}={text}: more than 100 years. Give a shorter duration.")
    return micros


def parse_day(flag: str, text: str) -> date:
    """Written YYYY-MM-DD, in no other form of ISO 8601. Raises UsageError naming the flag."""
    try:
        if not _DAY.fullmatch(text):
            raise ValueError(text)
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--{flag}={text}: not a day. Write YYYY-MM-DD.") from error


def format_duration(micros: int) -> str:
    """The inverse of `parse_duration`: microseconds as text, in the largest unit that is whole."""
    unit = next(
        unit
        for unit in ("d", "h", "m", "s", "ms")
        if micros % _UNITS[unit] == 0 and (micros or unit == "s")
    )
    return f"{micros // _UNITS[unit]}{unit}"


def parse_size(flag: str, text: str) -> int:
    """Bytes. Raises UsageError naming the flag."""
    match = _SIZE.fullmatch(text)
    if not match or int(match[1]) == 0:
        raise UsageError(
            f"--{flag}={text}: not a size. Write a whole number above 0 and B, KiB, MiB or GiB,"
            " such as 8MiB."
        )
    return int(match[1]) * _SIZES[match[2]]


def parse_whole(flag: str, text: str, least: int, most: int) -> int:
    """A whole number between two bounds, both included. Raises UsageError naming the flag."""
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII) or not least <= int(text) <= most:
        raise UsageError(f"--{flag}={text}: must be a whole number from {least:,} to {most:,}.")
    return int(text)


def parse_share(flag: str, text: str) -> float:
    """A number from 0 to 1. Raises UsageError naming the flag."""
    if not re.fullmatch(r"\d*\.?\d+", text, re.ASCII) or not float(text) <= 1:
        raise UsageError(f"--{flag}={text}: must be a share from 0 to 1, such as 0.02.")
    return float(text)
