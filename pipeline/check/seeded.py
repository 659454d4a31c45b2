"""Ids that another job has paid, before this pipeline: the seed counts as payments.

What counts of it is fixed since the first run. Where it cannot be read any more, or its rows are
others, nothing is taken on trust: copies of no payment of ours fail then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

from pipeline.check.repeats import repeat_results, repeated_payments
from pipeline.check.result import (
    FAILED,
    NOTED,
    PASSED,
    CheckResult,
    expect_no_rows,
)
from pipeline.counted import counted
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.contract.seed import Seed, seed_of
from transforms.destinations.contract.snapshot import Snapshot
from transforms.model.moments import moment_in_words
from transforms.model.tables import EARLIEST_US, LATEST_US

_PAID = "every duplicate is of a payment"
_ONCE = "no payment was paid by the old job too"


def check_paid(snapshot: Snapshot, runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """An id has copies only where it has a payment: a run in flight shows payments first.

    runs: the chain in its order, not empty. Fingerprints are asked for only where an id has no
    payment of its own, for that question reads and hashes every payment.
    """
    seed = seed_of(runs[-1])
    what = "ids with duplicates and without a payment"
    unpaid = _count(snapshot, None)
    problem = None if seed is None else snapshot.seeds.change(seed)
    left = 0 if not unpaid else unpaid if seed is None or problem else _count(snapshot, seed)
    if not left:
        yield CheckResult(_PAID, PASSED, f"no {what}")
    elif problem:
        figure = f"{counted(unpaid, 'id')} with duplicates and without a payment of ours; {problem}"
        yield CheckResult(_PAID, FAILED, figure)
    else:
        found = snapshot.query(snapshot.checks.unpaid_duplicates(seed))
        yield expect_no_rows(_PAID, found, what)
    if seed is None:
        return
    if problem:
        yield CheckResult(_ONCE, NOTED, f"it cannot be looked at: {problem}")
    else:
        yield from _paid_once(snapshot, runs, seed)
    yield _note(seed, unpaid - left if not problem else 0)


def _count(snapshot: Snapshot, seed: Seed | None) -> int:
    (unpaid,) = snapshot.query(snapshot.checks.unpaid_ids(seed)).column("n").to_pylist()
    return int(unpaid)


def _paid_once(snapshot: Snapshot, runs: Sequence[RunRecord], seed: Seed) -> Iterator[CheckResult]:
    """Judged as a second payment of an id is: what the run could not know any more is noted."""
    copies = snapshot.query(snapshot.checks.copies_of_seed(seed))
    repeats = repeated_payments(copies, runs, EARLIEST_US, LATEST_US)
    yield from repeat_results(
        _ONCE,
        repeats,
        lambda wrong: counted(wrong, "payment") if wrong else "no id of the seed was paid again",
        "ids of the old job that came again beyond the dedup horizon",
    )


def _note(seed: Seed, copies: int) -> CheckResult:
    keep = ""
    if copies:
        keep = f"; {counted(copies, 'id')} with duplicates of ours is paid there alone: keep it"
    return CheckResult(
        "ids that another job has paid",
        NOTED,
        f"{seed.table} counts up to {moment_in_words(seed.through_us)}{keep}",
    )


def seed_problems(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """Records that do not carry the seed of the one before them. runs: as RunHistory.read has them,
    so each names its predecessor or, behind a prune, a later one.
    """
    for before, run in pairwise(runs):
        if seed_of(before) != seed_of(run):
            yield {"run_id": run.run_id, "problem": f"its seed is not that of {before.run_id}"}
