"""Times from text: RFC 3339, and the forms that BigQuery takes.

A time without an offset is UTC, as in BigQuery. Digits beyond the microsecond are cut.
"""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.model.tables import EARLIEST_US, LATEST_US, TIMESTAMP

_FORM: Final = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:[Tt ](\d\d?):(\d\d?):(\d\d?)(?:\.(\d+))?)?"
    r" ?(?:[Zz]|[Uu][Tt][Cc]|([+-])(?:(\d\d?)(?::(\d\d?))?|(\d\d)(\d\d)))?",
    re.ASCII,
)
"""[M]M, [D]D and the like have one or two digits, time and zone may be left out, and an offset may
be +H, +HH, +HH:MM or +HHMM. BigQuery's form is
https://cloud.google.com/bigquery/docs/reference/standard-sql/data-types#canonical_format_for_timestamp_literals
of which only UTC is taken of the names of zones: the others depend on a data base that changes.
"""

_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)", re.ASCII)
_PLAIN: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_LIKE_PLAIN: Final = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})((\.[0-9]{1,6})[0-9]*)? ?"
)
_UTC_FORM: Final = b"0000-00-00T00:00:00.000000"
_IN_UTC: Final = _LIKE_PLAIN + r"([Zz]|UTC|[+-]00(:?00)?)?$"
_WITH_OFFSET: Final = _LIKE_PLAIN + r"([+-][0-9]{2}):?([0-9]{2})$"
_DATE_ALONE: Final = r"^([0-9]{4}-[0-9]{2}-[0-9]{2})$"
_EPOCH: Final = datetime(1970, 1, 1)
_RANGE: Final = {
    TIMESTAMP: (pa.scalar(EARLIEST_US), pa.scalar(LATEST_US)),
    pa.date32(): tuple(
        pa.scalar((day - _EPOCH.date()).days, pa.int32())
        for day in (date(1, 1, 1), date(9999, 12, 31))
    ),
}
_MICROSECOND: Final = timedelta(microseconds=1)
_MINUTE_US: Final = 60_000_000
_FEW: Final = 64
NO_MOMENT: Final = "is no moment between the years 0001 and 9999"


class NotATime(ValueError):
    """The text does not have the form of a time."""


class TimeOutOfRange(ValueError):
    """The form is right, but there is no such time. The text says why, as the end of a sentence."""


def parse_timestamp(text: str) -> int:
    """Microseconds since 1970 in UTC. Raises NotATime, TimeOutOfRange.

    A leap second, :60, is the :00 of the next minute, as in BigQuery. Sources: RFC 3339 section 5.6
    (https://www.rfc-editor.org/rfc/rfc3339#section-5.6), and that of _FORM.
    """
    match = _FORM.fullmatch(text)
    if not match:
        raise NotATime(text)
    year, month, day, hour, minute, second, fraction, sign, *offset = match.groups()
    midnight = _existing_day(year, month, day)
    seconds = _existing_time(int(hour or 0), int(minute or 0), int(second or 0))
    micros = (midnight - _EPOCH) // _MICROSECOND + seconds * 1_000_000
    if second != "60":
        micros += int((fraction or "")[:6].ljust(6, "0"))
    if sign:
        hours, minutes = (int(offset[0] or offset[2]), int(offset[1] or offset[3] or 0))
        if hours > 23 or minutes > 59:
            raise TimeOutOfRange("has an offset from UTC of more than 23:59")
        ahead = (hours * 60 + minutes) * _MINUTE_US
        micros += -ahead if sign == "+" else ahead
    if not EARLIEST_US <= micros <= LATEST_US:
        raise TimeOutOfRange(NO_MOMENT)
    return micros


def parse_date(text: str) -> date:
    """A date of the form 2026-11-27. Raises NotATime, TimeOutOfRange."""
    match = _DATE.fullmatch(text)
    if not match:
        raise NotATime(text)
    return _existing_day(*match.groups()).date()


def _existing_day(year: str, month: str, day: str) -> datetime:
    if int(year) < 1:
        raise TimeOutOfRange(NO_MOMENT)
    if not 1 <= int(month) <= 12:
        raise TimeOutOfRange(f"does not exist: there is no month {month}")
    last = monthrange(int(year), int(month))[1]
    if not 1 <= int(day) <= last:
        raise TimeOutOfRange(
            f"does not exist: {year}-{month} has {last} days, so there is no day {day}"
        )
    return datetime(int(year), int(month), int(day))


def _existing_time(hour: int, minute: int, second: int) -> int:
    """Seconds since midnight."""
    if hour > 23 or minute > 59 or second > 60:
        raise TimeOutOfRange(
            f"does not exist: there is no time {hour:02d}:{minute:02d}:{second:02d} in a day"
        )
    return hour * 3600 + minute * 60 + second


def plain_timestamps(texts: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """A column of texts as timestamps, and a mask of the rows that must be parsed one by one.

    Those are the rows that do not have one of the most common forms.
    """
    if _are_plain_in_utc(texts):
        return _times(texts, pa.repeat(pa.scalar(True), len(texts)), TIMESTAMP)
    plain = pc.match_substring_regex(texts, _PLAIN)
    if texts.null_count + plain.true_count < len(texts):
        texts = _respelled(texts, pc.fill_null(plain, False))
        plain = pc.match_substring_regex(texts, _PLAIN)
    return _times(texts, plain, TIMESTAMP)


def _are_plain_in_utc(texts: pa.Array) -> bool:
    """Whether all are spelled alike, as in 2026-11-27T08:15:30.123Z. Costs far less than a regular
    expression.
    """
    if texts.null_count or not len(texts):
        return False
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    length = int(bounds[1] - bounds[0])
    if not 20 <= length <= 27 or length == 21 or (np.diff(bounds) != length).any():
        return False
    letters = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    form = np.frombuffer((_UTC_FORM[: length - 1] + b"Z")[-length:], np.uint8)
    is_digit = form == ord("0")
    # Below "0" the difference wraps around.
    above = letters - np.tile(form, len(texts))
    return bool((above <= np.tile(np.where(is_digit, 9, 0).astype(np.uint8), len(texts))).all())


def plain_dates(texts: pa.Array) -> tuple[pa.Array, NDArray[np.bool_]]:
    """A column of texts as dates, and a mask of the rows that must be parsed one by one."""
    return _times(texts, pc.match_substring_regex(texts, _DATE_ALONE), pa.date32())


def within_range(times: pa.Array) -> pa.Array:
    """The timestamps or dates; null for those outside of the years 0001 to 9999."""
    least, most = _RANGE[times.type]
    numbers = times.view(least.type)
    found = pc.min_max(numbers)
    if not pc.or_(pc.less(found["min"], least), pc.greater(found["max"], most)).as_py():
        return times
    outside = pc.or_(pc.less(numbers, least), pc.greater(numbers, most))
    return pc.if_else(pc.fill_null(outside, False), None, times)


def _times(
    texts: pa.Array, plain: pa.Array, kind: pa.DataType
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """The plain texts as timestamps or dates, and a mask of the others, without null."""
    found = texts
    if texts.null_count + plain.true_count < len(texts):
        found = pc.if_else(plain, texts, None)
    times = within_range(_cast(found, kind))
    if times.null_count == texts.null_count:
        return times, np.zeros(len(times), dtype=bool)
    return times, np.asarray(pc.and_(pc.is_valid(texts), pc.is_null(times)))


def _respelled(texts: pa.Array, plain: pa.Array) -> pa.Array:
    """The texts with those that are not plain spelled as plain ones, where that is a matter of
    letters: a space for T, no zone, `UTC`, `+0530`, more than six digits of a second, no time.
    """
    others = pc.if_else(plain, None, texts)
    others = pc.replace_substring_regex(others, _IN_UTC, r"\1T\2\4Z")
    others = pc.replace_substring_regex(others, _WITH_OFFSET, r"\1T\2\4\5:\6")
    others = pc.replace_substring_regex(others, _DATE_ALONE, r"\1T00:00:00Z")
    return pc.if_else(plain, texts, others)


def _cast(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    """The column as timestamps or dates; null where there is no such time.

    One impossible date makes the cast of the whole column fail. So the column is halved until a
    failing part has at most _FEW rows, which become null together.
    """
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        if len(texts) <= _FEW:
            return pa.nulls(len(texts), kind)
        half = len(texts) // 2
        return pa.concat_arrays([_cast(texts[:half], kind), _cast(texts[half:], kind)])
