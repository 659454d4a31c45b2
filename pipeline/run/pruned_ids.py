"""Ids that a run needs, and that a prune has removed."""

from __future__ import annotations

from collections.abc import Sequence

from transforms.destinations.contract.pruned import last_pruned
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.model.buckets import first_live_time
from transforms.model.errors import GuaranteeError
from transforms.model.moments import moment_in_words


def check_reaches_no_pruned(
    runs: Sequence[RunRecord], lowest_watermark_us: int | None, extra_retention_us: int
) -> None:
    """Raises GuaranteeError where a run needs ids of payments that were pruned: copies of them
    would be paid again.

    runs: the chain, or its tail. lowest_watermark_us: of what the run reads, None: it needs all
    ids. Both in microseconds.
    """
    pruned = last_pruned(reversed(runs))
    latest = None if pruned is None else pruned.latest_ever_us
    if latest is None:
        return
    needed = (
        None
        if lowest_watermark_us is None
        else first_live_time(lowest_watermark_us, extra_retention_us)
    )
    if needed is None or needed <= latest:
        since = "the beginning" if needed is None else moment_in_words(needed)
        raise GuaranteeError(
            f"this run must know every id from {since} on, and payments up to"
            f" {moment_in_words(latest)} were pruned: a copy of one of them would be paid"
            " again. Give --dedup_horizon and --extra_retention that reach back less far, those of"
            " the last run, or use a new destination."
        )
