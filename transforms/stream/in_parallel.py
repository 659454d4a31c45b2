"""Calls of a recovery that do not depend on each other, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

MOST_AT_ONCE: Final = 16
"""Threads of one recovery.

A process with 16 shards creates 48 streams and finalizes as many, each a round trip. BigQuery
slows down above 40 to 50 new streams a second
(https://cloud.google.com/bigquery/docs/write-api-best-practices#limit_the_rate_of_stream_creation),
and several processes recover at the same time.
"""

_Result = TypeVar("_Result")


def in_parallel(calls: Sequence[Callable[[], _Result]]) -> list[_Result]:
    """The results of all calls, in their order.

    Returns when all of them have ended. Raises the error of the first one that failed; calls that
    had not begun by then are left out, and none goes on behind the caller.
    """
    if len(calls) == 1:
        return [calls[0]()]
    with ThreadPoolExecutor(MOST_AT_ONCE, "recovery") as threads:
        return list(threads.map(lambda call: call(), calls))
