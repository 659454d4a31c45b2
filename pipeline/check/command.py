"""`check`: finds out whether a row was lost, doubled or altered."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import pyarrow.compute as pc

from pipeline.check.coordinates import check_coordinates
from pipeline.check.health import check_health
from pipeline.check.in_flight import check_run_in_flight
from pipeline.check.ledger import check_ledger, highest_event_times
from pipeline.check.notes import (
    accepted_losses,
    adopted_topics,
    repaired_runs,
    topics_not_named,
)
from pipeline.check.pruned import pruned_tables, refuse_while_pruning
from pipeline.check.rejected_rate import check_rejected_rate
from pipeline.check.result import (
    FAILED,
    NOTED,
    PROOF_ROWS,
    CheckResult,
    exit_status,
    expect_no_rows,
    print_results,
)
from pipeline.check.seeded import check_paid
from pipeline.check.streamed import of_runs, owed_totals, owner_of_the_tables
from pipeline.counted import counted
from pipeline.logs import FORMATS
from pipeline.options.arguments import Arguments, add_output_arguments, one_of, plain_parser
from pipeline.options.destination import (
    add_destination_arguments,
    add_impersonation,
    destination_of,
)
from pipeline.options.quantities import parse_day, parse_share
from pipeline.run.rejected_rate import NEWEST_RECORDS
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import owner_of
from transforms.destinations.contract.pruned import judged
from transforms.destinations.contract.run_ledger import PREPARED, RunRecord, amount_and_currency
from transforms.destinations.contract.snapshot import Snapshot
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError
from transforms.model.tables import DUPLICATES, GAPS, PAYMENTS, REJECTED, RUNS, TOTALS

_UNPROTECTED_OF_A_PAYMENT: Final = (
    "payer_id",
    "payee_id",
    "status",
    "payment_method",
    "unknown_fields",
    "kafka_timestamp",
    "ingest_time",
)

UNPROTECTED_COLUMNS: Final = {
    PAYMENTS: _UNPROTECTED_OF_A_PAYMENT,
    DUPLICATES: _UNPROTECTED_OF_A_PAYMENT,
    REJECTED: ("reason", "detail", "payload", "kafka_timestamp", "ingest_time"),
    GAPS: ("cause",),
    TOTALS: ("stream_epoch", "stream_offset"),
    RUNS: ("plan_time", "live_ids", "state_bytes", "repairs"),
}
"""Columns that no check looks at, for the default schema: no sum and no count depends on them.

Event times are protected to the minute. Values that are swapped between two rows of one table,
minute and currency leave every sum as it was.
"""


def check_parser() -> Arguments:
    """The options of `check`. Values stay text; check_command checks them."""
    parser = plain_parser(
        "payment-pipeline check",
        "Finds out whether a row was lost, doubled or altered. Exit status 1 when the proof is"
        " broken, 6 when only a limit is exceeded.",
    )
    add_destination_arguments(parser, writes=False)
    add_impersonation(parser)
    parser.add_argument(
        "--date",
        metavar="YYYY-MM-DD",
        help="ids and duplicate rate of this day's event times only (UTC)",
    )
    parser.add_argument(
        "--max_duplicate_rate",
        default="0.02",
        metavar="SHARE",
        help="duplicates per payment must stay below",
    )
    parser.add_argument(
        "--max_state_mb",
        default="400",
        metavar="MB",
        help="the state of the last run must not be larger",
    )
    parser.add_argument(
        "--max_rejected_rate",
        default="0.1",
        metavar="SHARE",
        help=f"rejected among the newest {NEWEST_RECORDS:,} records of a topic; 1: not checked",
    )
    add_output_arguments(parser, "print the results as JSON")
    return parser


def check_command(
    argv: Sequence[str], now_us: Callable[[], int] = lambda: time.time_ns() // 1000
) -> int:
    """Prints every result, and returns the exit status.

    0: all passed, or nothing to check; 1: the proof is broken; 6: only a limit is exceeded. now_us:
    the clock, in microseconds. Raises UsageError, or TryAgainLater when the DuckDB file is in use.
    """
    given = check_parser().parse_strictly(argv)
    one_of("log_format", given.log_format, FORMATS)
    destination = destination_of(given, must_exist=True)
    day = None if given.date is None else parse_day("date", given.date).isoformat()
    rate = parse_share("max_duplicate_rate", given.max_duplicate_rate)
    state_mb = _megabytes(given.max_state_mb)
    rejected = parse_share("max_rejected_rate", given.max_rejected_rate)
    with destination:
        results = list(check(destination, day, rate, state_mb, rejected, now_us()))
        if destination.bytes_read is not None:
            print(
                "BigQuery: the queries of this check read"
                f" {counted(destination.bytes_read, 'byte')}",
                file=sys.stderr,
            )
    print_results(results, given.json)
    return exit_status(results)


def check(
    destination: Destination,
    day: str | None,
    max_duplicate_rate: float,
    max_state_mb: float,
    max_rejected_rate: float = 1.0,
    now_us: int | None = None,
) -> Iterator[CheckResult]:
    """All checks of an open destination, of one moment: runs may commit meanwhile.

    now_us: microseconds since 1970, to tell a run in flight from a dead one; None: not told. Raises
    TryAgainLater while rows are being pruned.
    """
    if not destination.tables.exist():
        raise UsageError(
            f"--destination={destination.name}: no run has written here. Give the destination that"
            " run has written to."
        )
    with destination.at_one_moment() as snapshot:
        yield from _checks(
            snapshot, day, max_duplicate_rate, max_state_mb, max_rejected_rate, now_us
        )


def _checks(
    snapshot: Snapshot,
    day: str | None,
    max_duplicate_rate: float,
    max_state_mb: float,
    max_rejected_rate: float,
    now_us: int | None,
) -> Iterator[CheckResult]:
    try:
        runs = snapshot.runs.read()
    except TryAgainLater:
        raise
    except GuaranteeError as broken:
        yield CheckResult("the ledger is one chain", FAILED, broken.message)
        return
    refuse_while_pruning(runs[-1:], now_us)
    if not runs:
        (rows,) = snapshot.query(snapshot.checks.row_count).column("n").to_pylist()
        empty = not rows
        figure = (
            "nothing to check: no run has written here"
            if empty
            else "the tables have rows, but the ledger is empty"
        )
        yield CheckResult("the ledger is one chain", NOTED if empty else FAILED, figure)
        return
    yield from check_health(snapshot, runs, day, max_duplicate_rate, max_state_mb)
    yield from check_rejected_rate(snapshot, runs, max_rejected_rate)
    yield from check_ledger(runs, highest_event_times(snapshot))
    yield from check_coordinates(snapshot, runs)
    yield expect_no_rows(
        "each run has the rows it wrote, table by table",
        of_runs(snapshot.query(snapshot.checks.rows_by_run), judged(runs)),
        "differences",
    )
    yield from check_paid(snapshot, runs)
    yield from _totals(snapshot, runs)
    yield from topics_not_named(runs)
    yield from adopted_topics(runs)
    yield from accepted_losses(snapshot)
    yield from repaired_runs(runs)
    yield from check_run_in_flight(runs[-1], now_us)
    yield from owner_of_the_tables(runs)
    yield from pruned_tables(runs)


def _totals(snapshot: Snapshot, runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Control totals against the rows of the tables, per window, outcome and currency.

    The totals become visible last, so a run in flight may have committed them or not: the totals
    must add up either with its rows or without them.
    """
    columns = amount_and_currency(runs[-1].settings)
    in_flight = runs[-1].status == PREPARED
    found = snapshot.query(snapshot.checks.totals_differences(*columns, not in_flight))
    if found.num_rows and in_flight:
        found = snapshot.query(snapshot.checks.totals_differences(*columns, True))
    marked = snapshot.query(snapshot.checks.unobserved_windows).column("window_start")
    unobserved = pc.is_in(found.column("window_start"), value_set=marked)
    differs = found.filter(pc.invert(unobserved))
    owed = owed_totals(differs)
    if owner_of(runs) is not None and pc.any(owed).as_py():
        yield CheckResult(
            "windows that are still open",
            NOTED,
            f"{counted(pc.sum(owed).as_py(), 'total is', 'totals are')} not written yet: the"
            " streaming job writes a window when its watermark closes it",
        )
        differs = differs.filter(pc.invert(owed))
    yield expect_no_rows(
        "control totals add up to the tables", differs, "windows that do not add up"
    )
    if len(marked):
        figure = (
            f"{counted(len(marked), 'window')} without complete totals: open when a streaming job"
            " began without a checkpoint, or was stopped without its state"
        )
        yield CheckResult(
            "windows that nobody observed as a whole",
            NOTED,
            figure,
            found.filter(unobserved).slice(0, PROOF_ROWS).to_pylist(),
        )


def _megabytes(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
        raise UsageError(f"--max_state_mb={text}: must be a number of megabytes, such as 400.")
    return float(text)
