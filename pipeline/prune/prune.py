"""One prune of a destination, from the look at its tables to the mark of its record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.check.command import check
from pipeline.check.pruned import refuse_while_pruning
from pipeline.check.result import FAILED, PROOF, CheckResult
from pipeline.prune.plan import Nothing, PrunePlan, plan_prune
from pipeline.run.commit import Moment, commit
from pipeline.run.notes import Notes
from pipeline.run.preconditions import check_clock
from pipeline.run.prune_record import claim, prune_record
from pipeline.run.recover import recover
from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.contract.ownership import owner_of
from transforms.destinations.contract.pruned import last_pruned
from transforms.destinations.contract.run_ledger import COMMITTED, PREPARED, last_committed
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.moments import moment_in_words


@dataclass(frozen=True)
class PruneResult:
    """failed: of `check`; then nothing was removed. run_id: of the record; None where none was
    made. plan: what was removed, or would be; None where `check` failed. kept: rows that stay below
    the border then, as they have later copies.
    """

    failed: Sequence[CheckResult] = ()
    plan: PrunePlan | Nothing | None = None
    run_id: str | None = None
    kept: int = 0


def prune(
    destination: Destination, before_us: int, now_us: Callable[[], int], dry_run: bool = False
) -> PruneResult:
    """One prune of an open destination. before_us: microseconds since 1970.

    Raises GuaranteeError where a job owns the tables, or a run must be repaired first;
    TryAgainLater where a run was faster, or rows are too new to be removed.
    """
    runs = chain_of(destination)
    if not runs:
        return PruneResult(plan=Nothing("no run has been"))
    skew = int(str(last_committed(runs).settings["max_future_skew_us"]))
    check_clock(destination, runs, skew, now_us)
    if dry_run:
        refuse_while_pruning(runs[-1:], now_us())
    elif owner_of(runs) is None:
        recover(destination, runs, now_us(), Notes())
    # Everything from here on is judged by this chain, and the claim is behind its end: whatever
    # becomes visible, begins or dies meanwhile makes it fail.
    chain = destination.runs.read()
    owner = owner_of(chain)
    if owner is not None:
        raise GuaranteeError(
            f"the streaming job {owner.job_id} owns the tables since"
            f" {moment_in_words(owner.since_us)}, and its checkpoints count on their rows. Nothing"
            " was removed. End it with `payment-pipeline stop`, prune, and start a job"
            " --from_tables."
        )
    if chain[-1].status == PREPARED:
        raise GuaranteeError(
            f"run {chain[-1].run_id} is not visible as a whole. Nothing was removed."
            " `payment-pipeline run` finishes or repairs it; prune after it."
        )
    failed = [
        result
        for result in check(destination, None, 1.0, float("inf"), now_us=now_us())
        if (result.status, result.kind) == (FAILED, PROOF)
    ]
    if failed:
        return PruneResult(failed)
    plan = plan_prune(destination, chain, before_us)
    if isinstance(plan, Nothing):
        before = last_pruned(reversed(chain))
        return PruneResult(plan=plan, kept=before.kept if before else 0)
    if dry_run:
        return PruneResult(plan=plan, kept=plan.pruned.kept)
    destination.pruning.refuse_fresh_rows()
    since = Moment.now()
    record = prune_record(destination, chain, plan.pruned, plan.rows, now_us())
    claim(destination, record)
    status = commit(destination, record, since)
    if status != COMMITTED:
        raise TryAgainLater(
            f"prune {record.run_id} is {status}: its streams were gone. Prune again."
        )
    return PruneResult(plan=plan, run_id=record.run_id, kept=plan.pruned.kept)
