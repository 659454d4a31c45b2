"""The health checks that users know from the Spark job: state size, unique ids, duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from pipeline.check.repeats import repeat_results, repeated_payments
from pipeline.check.result import (
    NOTED,
    CheckResult,
    limit_result,
)
from pipeline.counted import counted
from transforms.destinations.contract.checks import time_bounds
from transforms.destinations.contract.ownership import ownership_of
from transforms.destinations.contract.run_ledger import RunRecord, last_committed
from transforms.destinations.contract.snapshot import Snapshot

_UNIQUE: Final = "COUNT(DISTINCT transaction_id) = COUNT(*)"
_MEGABYTE: Final = 1_000_000


def check_health(
    snapshot: Snapshot,
    runs: Sequence[RunRecord],
    day: str | None,
    max_duplicate_rate: float,
    max_state_mb: float,
) -> Iterator[CheckResult]:
    """runs: the chain in its order, not empty. day: event times of YYYY-MM-DD (UTC); None: all."""
    yield _state_size(last_committed(runs), max_state_mb)
    when = time_bounds(day)
    (ids,) = snapshot.query(snapshot.checks.distinct_ids, when).to_pylist()
    if not ids["total"]:
        yield CheckResult(
            _UNIQUE,
            NOTED,
            "nothing to check: no payment" + (f" on {day}" if day else ""),
        )
        return
    # Over all days the two counts show whether an id repeats at all; those of one day do not: the
    # other payment may lie on another day.
    repeats = []
    if day is not None or ids["uniq"] != ids["total"]:
        repeats = repeated_payments(
            snapshot.query(snapshot.checks.copies_of_repeated_ids, when), runs, **when
        )
    yield from repeat_results(
        _UNIQUE,
        repeats,
        lambda _: f"{counted(ids['uniq'], 'id')}, {counted(ids['total'], 'row')}",
        "ids that came again beyond the dedup horizon",
    )
    yield _duplicate_rate(snapshot, when, max_duplicate_rate)


def _state_size(last: RunRecord, max_state_mb: float) -> CheckResult:
    if ownership_of(last) is not None:
        figure = "not known here of a streaming job; `status --flink_master=HOST:PORT` shows it"
        return CheckResult("state size", NOTED, figure)
    figure = (
        f"{counted(last.live_ids, 'id')} in {last.state_bytes / _MEGABYTE:,.1f} MB,"
        f" allowed {max_state_mb:g} MB (--max_state_mb)"
    )
    small = last.state_bytes <= max_state_mb * _MEGABYTE
    return limit_result("state size", small, figure)


def _duplicate_rate(
    snapshot: Snapshot, when: dict[str, Any], max_duplicate_rate: float
) -> CheckResult:
    (rate,) = snapshot.query(snapshot.checks.duplicate_rate, when).to_pylist()
    average = rate["average"]
    figure = (
        f"{average:.4%} on average, allowed below {max_duplicate_rate:.2%} (--max_duplicate_rate)"
    )
    return limit_result("AVG(dup_count)", average < max_duplicate_rate, figure)
