"""`prune`: removes old payments, their copies and rejected records, with their runs.

What proves the tables goes with them, so it is looked at first: a prune is refused where `check`
fails.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any, Final

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
from pipeline.options.quantities import parse_day
from transforms.model.errors import UsageError

if TYPE_CHECKING:
    from pipeline.prune.prune import PruneResult

_EPOCH: Final = date(1970, 1, 1)
_DAY_US: Final = 86_400_000_000


CHECK_FAILED: Final = (
    "check fails, and what is removed cannot be checked any more; nothing was removed"
)


def prune_parser() -> Arguments:
    """The options of `prune`. Values stay text; prune_command checks them."""
    parser = plain_parser(
        "payment-pipeline prune",
        "Removes old payments with their copies, rejected records and runs. Whole runs go, from the"
        " first one on: those whose payments all lie before the date, and behind the dedup horizon"
        " and retention of every partition, so that no later run can need their ids. A payment"
        " stays as long as a copy of it does. `check` runs first: status 1 where it fails, and"
        " nothing was removed. A prune that was killed is finished by the next `prune` or `run`.",
    )
    parser.add_argument(
        "--before",
        metavar="YYYY-MM-DD",
        help="what lies before this day goes: event times of payments and duplicates, and the"
        " times of the runs that have rejected records (UTC). Required.",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="say what would be removed, and change nothing"
    )
    add_destination_arguments(parser, writes=False)
    add_impersonation(parser)
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
    before_us = _day(required(given, "before", "2026-01-01"), now_us())
    # Beam alone takes more than a second, and neither --help nor wrong usage needs it.
    from pipeline.check.result import PROOF_BROKEN, print_results
    from pipeline.prune.prune import prune

    with destination_of(given, must_exist=True) as destination:
        if not destination.tables.exist():
            raise UsageError(
                f"--destination={destination.name}: no run has written here. Give the destination"
                " that run has written to."
            )
        result = prune(destination, before_us, now_us, dry_run=given.dry_run)
    status = PROOF_BROKEN if result.failed else 0
    if given.json:
        print(json.dumps(_figures(result, status), default=str))
    elif result.failed:
        print_results(result.failed, as_json=False)
        print(CHECK_FAILED)
    else:
        print(_in_words(result, given.before))
    return status


def _day(text: str, now_us: int) -> int:
    """Its beginning, in microseconds since 1970. One that is still to come is a slip of the pen,
    but for tomorrow: before it lie all of today's runs.
    """
    found = (parse_day("before", text) - _EPOCH).days * _DAY_US
    if found > now_us + _DAY_US:
        raise UsageError(
            f"--before={text}: it lies in the future. Give a day up to tomorrow (UTC); what ids are"
            " still known by stays in any case."
        )
    return found


def _figures(result: PruneResult, status: int) -> dict[str, Any]:
    """One shape, whatever has become of it."""
    from pipeline.prune.plan import PrunePlan

    plan = result.plan if isinstance(result.plan, PrunePlan) else None
    return {
        "exit_status": status,
        "error": CHECK_FAILED if result.failed else None,
        "failed": [asdict(one) for one in result.failed],
        "run_id": result.run_id,
        "runs": plan.runs if plan else 0,
        "removed": plan.pruned.removed() if plan else {},
        "kept": result.kept,
        "payments_before_that_stay": plan.stay if plan else None,
        "why": result.plan.why if result.plan else None,
        "positions": [
            {"topic": part.topic, "partition": part.partition, "below": part.below}
            for part in (plan.pruned.partitions if plan else ())
        ],
    }


def _in_words(result: PruneResult, day: str) -> str:
    from pipeline.prune.plan import PrunePlan

    plan = result.plan
    assert plan is not None
    if not isinstance(plan, PrunePlan):
        return f"nothing to prune: {plan.why}"
    rows = ", ".join(f"{rows:,} of {table}" for table, rows in plan.pruned.removed().items())
    verb = "would be removed" if result.run_id is None else "removed"
    lines = [f"{verb}: {counted(plan.runs, 'run')} with {rows}"]
    if plan.stay:
        lines.append(f"  {counted(plan.stay, 'payment')} before {day} stay: {plan.why}")
    if result.kept:
        lines.append(f"  kept of what lies before: {counted(result.kept, 'row')} with later copies")
    lines += [
        f"  {part.topic}:{part.partition}: runs are whole from offset {part.below:,} on"
        for part in plan.pruned.partitions
    ]
    return "\n".join(lines)
