"""Moments and spans of time, in microseconds, as a person reads them."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

_UNITS: Final = (
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
)


def moment_in_words(micros: int) -> str:
    """Microseconds since 1970 as RFC 3339 in UTC, such as 2026-11-27T19:30:00Z; of any year."""
    return f"{str(np.datetime64(micros, 'us')).removesuffix('.000000')}Z"


def span_in_words(micros: int) -> str:
    """A span that is not negative in its two largest units, such as `3 h 12 min`.

    What is less than the second unit is left out.
    """
    for (unit, size), (smaller, smaller_size) in pairwise(_UNITS):
        if micros >= size:
            rest = micros % size // smaller_size
            return f"{micros // size:,} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{micros} us"
