"""Times from text: RFC 3339 with any offset.

A time without an offset is UTC, as in BigQuery. Digits beyond the microsecond are cut.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.model.tables import EARLIEST_US, LATEST_US, TIMESTAMP

_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))? ?(?:[Zz]|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)
_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_PLAIN: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_EPOCH: Final = datetime(1970, 1, 1)
_FEW: Final = 64


class NotATime(ValueError):
    """The text does not have the form of a time."""


class TimeOutOfRange(ValueError):
    """The form is right, but there is no such time between the years 0001 and 9999.

    Leap seconds are refused too, as in BigQuery.
    """


def parse_timestamp(text: str) -> int:
    """Microseconds since 1970 in UTC. Raises NotATime, TimeOutOfRange.

    Source: RFC 3339 section 5.6 (https://www.rfc-editor.org/rfc/rfc3339#section-5.6).
    """
    match = _RFC3339.fullmatch(text)
    if not match:
        raise NotATime(text)
    year, month, day, hour, minute, second, fraction, sign, offset_hours, offset_minutes = (
        match.groups()
    )
    try:
        moment = datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            int(second),
            int((fraction or "")[:6].ljust(6, "0")),
        )
        if sign:
            if int(offset_hours) > 23 or int(offset_minutes) > 59:
                raise TimeOutOfRange(text)
            offset = timedelta(hours=int(offset_hours), minutes=int(offset_minutes))
            moment = moment - offset if sign == "+" else moment + offset
    except (ValueError, OverflowError) as error:
        raise TimeOutOfRange(text) from error
    return (moment - _EPOCH) // timedelta(microseconds=1)


def parse_date(text: str) -> date:
    """A date of the form 2026-11-27. Raises NotATime, TimeOutOfRange."""
    match = _DATE.fullmatch(text)
    if not match:
        raise NotATime(text)
    try:
        return date(*map(int, match.groups()))
    except ValueError as error:
        raise TimeOutOfRange(text) from error


def plain_timestamps(texts: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """A column of texts as timestamps, and a mask of the rows that must be parsed one by one.

    Those are the rows that do not have the most common form.
    """
    plain = pc.fill_null(pc.match_substring_regex(texts, _PLAIN), False)
    times = _cast(pc.if_else(plain, texts, None))
    micros = times.view(pa.int64())
    outside = pc.or_(pc.less(micros, EARLIEST_US), pc.greater(micros, LATEST_US))
    times = pc.if_else(pc.fill_null(outside, False), None, times)
    return times, np.asarray(pc.and_(pc.is_valid(texts), pc.is_null(times)))


def _cast(texts: pa.Array) -> pa.Array:
    """The column as timestamps; null where there is no such time.

    One impossible date makes the cast of the whole column fail. So the column is halved until a
    failing part has at most _FEW rows, which become null together.
    """
    try:
        return texts.cast(TIMESTAMP)
    except pa.ArrowInvalid:
        if len(texts) <= _FEW:
            return pa.nulls(len(texts), TIMESTAMP)
        half = len(texts) // 2
        return pa.concat_arrays([_cast(texts[:half]), _cast(texts[half:])])
