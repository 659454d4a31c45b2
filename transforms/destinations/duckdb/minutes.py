"""Minutes of event time in DuckDB's SQL, by whole numbers alone.

A division as DOUBLE rounds moments before 1684 and after 2255 up.
"""

from __future__ import annotations

from transforms.model.buckets import BUCKET_US


def minute_start(column: str) -> str:
    """Microseconds since 1970 of the start of the minute.

    `%` has the sign of its left side, and times before 1970 are negative.
    """
    return (
        f"(epoch_us({column}) - ((epoch_us({column}) % {BUCKET_US}) + {BUCKET_US}) % {BUCKET_US})"
    )


def bucket(column: str) -> str:
    """Number of the one-minute bucket, as transforms/model/buckets.py counts them."""
    return f"({minute_start(column)} // {BUCKET_US})"
