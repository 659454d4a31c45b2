"""`prune`: removes old payments, their copies and rejected records, with their runs.

What proves the tables goes with them, so it is looked at first: a prune is refused where `check`
fails.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final

from pipeline.check.command import check
from pipeline.check.result import FAILED, PROOF, PROOF_BROKEN, CheckResult, print_results
from pipeline.counted import counted
from pipeline.logs import FORMATS
from pipeline.options.arguments import (
    Arguments,
    add_output_arguments,
    one_of,
    plain_parser,
    required,
)
from pipeline.options.destination import (
    add_destination_arguments,
    add_impersonation,
    destination_of,
)
from pipeline.prune.plan import Nothing, PrunePlan, plan_prune
from pipeline.run.commit import Moment, commit
from pipeline.run.notes import Notes
from pipeline.run.preconditions import check_clock
from pipeline.run.prune_record import claim, prune_record
from pipeline.run.recover import recover
from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.contract.ownership import owner_of
from transforms.destinations.contract.run_ledger import COMMITTED, PREPARED, last_committed
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError
from transforms.model.moments import moment_in_words

_LOG = logging.getLogger(__name__)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class PruneResult:
    """failed: of `check`; then nothing was removed. run_id: of the record; None where none was
    made. plan: what was removed, or would be; None where `check` failed.
    """

    failed: Sequence[CheckResult] = ()
    plan: PrunePlan | Nothing | None = None
    run_id: str | None = None


def prune_parser() -> Arguments:
    """The options of `prune`. Values stay text; prune_command checks them."""
    parser = plain_parser(
        "payment-pipeline prune",
        "Removes whole runs whose payments lie before a date and are known by no later run. `check`"
        " must pass first; exit status 1 where it does not.",
    )
    add_destination_arguments(parser)
    add_impersonation(parser)
    parser.add_argument(
        "--before",
        metavar="YYYY-MM-DD",
        help="what lies before this day goes: event times of payments and duplicates, and the"
        " times of the runs that have rejected records (UTC). Required.",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="say what would be removed, and change nothing"
    )
    add_output_arguments(parser, "print one JSON object")
    return parser


def prune_command(
    argv: Sequence[str], now_us: Callable[[], int] = lambda: time.time_ns() // 1000
) -> int:
    """Prints what was removed, and returns the exit status: 1 where `check` fails.

    now_us: the clock, in microseconds. Raises UsageError, GuaranteeError or TryAgainLater.
    """
    given = prune_parser().parse_strictly(argv)
    one_of("log_format", given.log_format, FORMATS)
    before_us = _day(required(given, "before", "2026-01-01"))
    with destination_of(given, must_exist=True) as destination:
        if not destination.tables.exist():
            raise UsageError(
                f"--destination={destination.name}: no run has written here. Give the destination"
                " that run has written to."
            )
        result = prune(destination, before_us, now_us, dry_run=given.dry_run)
    if result.failed:
        print_results(result.failed, given.json)
        print(
            "prune: check fails, and what is removed cannot be checked any more. Nothing was"
            " removed.",
            file=sys.stderr,
        )
        return PROOF_BROKEN
    assert result.plan is not None
    done = result.run_id
    print(json.dumps(_figures(result.plan, done)) if given.json else _in_words(result.plan, done))
    return 0


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
    owner = owner_of(runs)
    if owner is not None:
        raise GuaranteeError(
            f"the streaming job {owner.job_id} owns the tables since"
            f" {moment_in_words(owner.since_us)}, and its checkpoints count on their rows. Nothing"
            " was removed. End it with `payment-pipeline stop`, prune, and start a job"
            " --from_tables."
        )
    skew = int(str(last_committed(runs).settings["max_future_skew_us"]))
    check_clock(destination, runs, skew, now_us)
    if runs[-1].status == PREPARED and not dry_run:
        runs = recover(destination, runs, now_us(), Notes())
    if runs[-1].status == PREPARED:
        raise GuaranteeError(
            f"run {runs[-1].run_id} is not visible as a whole. Nothing was removed."
            " `payment-pipeline run` finishes or repairs it; prune after it."
        )
    failed = [
        result
        for result in check(destination, None, 1.0, float("inf"), now_us=now_us())
        if (result.status, result.kind) == (FAILED, PROOF)
    ]
    if failed:
        return PruneResult(failed)
    chain = destination.runs.read()
    plan = plan_prune(destination, chain, before_us)
    if isinstance(plan, Nothing) or dry_run:
        return PruneResult(plan=plan)
    destination.pruning.refuse_fresh_rows()
    since = Moment.now()
    record = prune_record(destination, chain, plan.pruned, now_us())
    claim(destination, record)
    status = commit(destination, record, since)
    if status != COMMITTED:
        raise TryAgainLater(f"prune {record.run_id} is {status}: another process was at it. Again.")
    return PruneResult(plan=plan, run_id=record.run_id)


def _day(text: str) -> int:
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            raise ValueError(text)
        day = datetime.combine(date.fromisoformat(text), datetime.min.time(), timezone.utc)
    except ValueError as error:
        raise UsageError(f"--before={text}: not a day. Write YYYY-MM-DD.") from error
    return (day - _EPOCH) // _MICROSECOND


def _figures(plan: PrunePlan | Nothing, run_id: str | None) -> dict[str, Any]:
    if isinstance(plan, Nothing):
        return {"run_id": None, "removed": {}, "kept": 0, "runs": 0, "why": plan.why}
    pruned = plan.pruned
    return {
        "run_id": run_id,
        "removed": pruned.removed(),
        "kept": pruned.kept,
        "runs": plan.runs,
        "positions": [
            {"topic": part.topic, "partition": part.partition, "below": part.below}
            for part in pruned.partitions
        ],
    }


def _in_words(plan: PrunePlan | Nothing, run_id: str | None) -> str:
    if isinstance(plan, Nothing):
        return f"nothing to prune: {plan.why}"
    pruned = plan.pruned
    rows = ", ".join(f"{rows:,} of {table}" for table, rows in pruned.removed().items())
    verb = "would be removed" if run_id is None else "removed"
    lines = [f"{verb}: {counted(plan.runs, 'run')} with {rows}"]
    if pruned.kept:
        lines.append(f"  kept: {counted(pruned.kept, 'row')} of ids that have a later copy")
    lines += [
        f"  {part.topic}:{part.partition}: the tables begin at offset {part.below:,}"
        for part in pruned.partitions
    ]
    return "\n".join(lines)
