"""Times from numbers: how many seconds, or parts of one, have passed since 1970 in UTC.

Exact, from the decimal digits: a double has too few of them for today's nanoseconds. Digits beyond
the microsecond are cut, so the moment is rounded towards the past, as a time in text is.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.decode.timestamps import (
    NO_MOMENT,
    NotATime,
    TimeOutOfRange,
    plain_timestamps,
    within_range,
)
from transforms.model.tables import EARLIEST_US, LATEST_US, TIMESTAMP

_MICROSECOND_EXPONENT: Final = {"s": 6, "ms": 3, "us": 0, "ns": -3}
"""Unit -> the power of ten that makes microseconds of it."""

_NUMBER: Final = re.compile(r"([+-]?)(?=\.?\d)(\d*)\.?(\d*)(?:[eE]([+-]?)0*(\d+))?", re.ASCII)
_MOST_DIGITS: Final = 19
_ENDLESS: Final = 10**9
_WHOLE: Final = {
    "s": "-?[0-9]{1,12}",
    "ms": "-?[0-9]{1,15}",
    "us": "-?[0-9]{1,18}",
    "ns": "-?(?:[0-9]{1,18}|[1-8][0-9]{18})",
}
_FRACTION: Final = {unit: r"(?:\.[0-9]{1,18})?" if unit in ("s", "ms") else "" for unit in _WHOLE}


def is_number(text: str) -> bool:
    """Whether `parse_epoch` takes the text for a number."""
    return _NUMBER.fullmatch(text) is not None


def parse_epoch(text: str, unit: str) -> int:
    """Microseconds since 1970 in UTC, of a decimal number of any length.

    unit: s, ms, us or ns. Raises NotATime for what is no number, TimeOutOfRange.
    """
    match = _NUMBER.fullmatch(text)
    if not match:
        raise NotATime(text)
    sign, whole, fraction, exponent_sign, exponent_digits = match.groups()
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    exponent = int(exponent_digits or 0) if len(exponent_digits or "") < 10 else _ENDLESS
    shift = (
        (-exponent if exponent_sign == "-" else exponent)
        - len(fraction)
        + _MICROSECOND_EXPONENT[unit]
    )
    if len(digits) + shift > _MOST_DIGITS:
        raise TimeOutOfRange(NO_MOMENT)
    kept, cut = (digits + "0" * shift, "") if shift >= 0 else (digits[:shift], digits[shift:])
    micros = int(kept or 0)
    if sign == "-":
        micros = -micros - bool(cut.strip("0"))
    if not EARLIEST_US <= micros <= LATEST_US:
        raise TimeOutOfRange(NO_MOMENT)
    return micros


def plain_epochs(values: pa.Array, unit: str, required: bool) -> tuple[pa.Array, NDArray[np.bool_]]:
    """A column of JSON values as timestamps, and a mask of the rows that must be parsed one by one.

    values: the JSON text of each. It takes numbers, numbers in strings and times in text, of the
    most common forms, and null if the field is not `required`.
    """
    number = f"{_WHOLE[unit]}{_FRACTION[unit]}"
    is_epoch = pc.match_substring_regex(values, f'^(?:{number}|"{number}")$')
    inner = pc.utf8_trim(values, characters='"')
    times = _epochs(pc.if_else(is_epoch, inner, None), unit)
    if is_epoch.true_count < len(values):
        is_text = pc.match_substring_regex(values, r'^"[^"\\]*"$')
        texts, _ = plain_timestamps(pc.if_else(pc.and_not(is_text, is_epoch), inner, None))
        times = pc.coalesce(times, texts)
    understood = pc.is_valid(times)
    if not required:
        understood = pc.or_(understood, pc.equal(values, "null"))
    return times, ~np.asarray(understood)


def _epochs(numbers: pa.Array, unit: str) -> pa.Array:
    """Plain numbers as timestamps; null for those that are out of range, or below 0 with digits
    that are cut.
    """
    parts = pc.extract_regex(numbers, r"^(?P<whole>-?[0-9]+)(?:\.(?P<fraction>[0-9]+))?$")
    whole = pc.fill_null(pc.struct_field(parts, "whole").cast(pa.int64()), 0).to_numpy()
    exponent = _MICROSECOND_EXPONENT[unit]
    if exponent <= 0:
        micros = whole // 10**-exponent
        unsure = np.zeros(len(micros), dtype=bool)
    else:
        fraction = pc.fill_null(pc.struct_field(parts, "fraction"), "")
        kept = pc.utf8_rpad(pc.utf8_slice_codeunits(fraction, 0, exponent), exponent, "0")
        micros = whole * 10**exponent + kept.cast(pa.int64()).to_numpy()
        has_fraction = np.asarray(pc.greater(pc.utf8_length(fraction), 0))
        unsure = has_fraction & np.asarray(
            pc.fill_null(pc.starts_with(numbers, pattern="-"), False)
        )
    times = pa.array(micros, mask=unsure | np.asarray(pc.is_null(numbers))).cast(TIMESTAMP)
    return within_range(times)
