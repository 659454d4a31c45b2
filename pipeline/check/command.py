"""`check`: finds out whether a row was lost, doubled or altered."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final

import pyarrow.compute as pc

from pipeline.check.coordinates import check_coordinates
from pipeline.check.health import check_health
from pipeline.check.ledger import check_ledger, highest_event_times
from pipeline.check.result import (
    FAILED,
    NOTED,
    PROOF_ROWS,
    CheckResult,
    expect_no_rows,
    print_results,
)
from pipeline.logs import FORMATS
from pipeline.options.arguments import Arguments, add_output_arguments, one_of, plain_parser
from pipeline.options.destination import (
    add_destination_arguments,
    add_impersonation,
    destination_of,
)
from pipeline.options.quantities import parse_share
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import PREPARED, RunRecord
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
        "Finds out whether a row was lost, doubled or altered. Exit status 1 when a check fails.",
    )
    add_destination_arguments(parser)
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
    add_output_arguments(parser, "print the results as JSON")
    return parser


def check_command(argv: Sequence[str]) -> int:
    """Prints every result. 0: all passed, or nothing to check; 1: at least one failed.

    Raises UsageError, or TryAgainLater when the DuckDB file is in use.
    """
    given = check_parser().parse_strictly(argv)
    one_of("log_format", given.log_format, FORMATS)
    destination = destination_of(given, must_exist=True)
    day = _day(given.date)
    rate = parse_share("max_duplicate_rate", given.max_duplicate_rate)
    state_mb = _megabytes(given.max_state_mb)
    with destination:
        results = list(check(destination, day, rate, state_mb))
        if destination.bytes_read is not None:
            print(
                f"BigQuery: the queries of this check read {destination.bytes_read:,} bytes",
                file=sys.stderr,
            )
    print_results(results, given.json)
    return int(any(result.status == FAILED for result in results))


def check(
    destination: Destination, day: str | None, max_duplicate_rate: float, max_state_mb: float
) -> Iterator[CheckResult]:
    """All checks of an open destination."""
    if not destination.tables.exist():
        raise UsageError(
            f"--destination={destination.name}: no run has written here. Give the destination that"
            " run has written to."
        )
    try:
        runs = destination.runs.read()
    except TryAgainLater:
        raise
    except GuaranteeError as broken:
        yield CheckResult("the ledger is one chain", FAILED, broken.message)
        return
    if not runs:
        empty = destination.tables.are_empty()
        figure = (
            "nothing to check: no run has written here"
            if empty
            else "the tables have rows, but the ledger is empty"
        )
        yield CheckResult("the ledger is one chain", NOTED if empty else FAILED, figure)
        return
    yield from check_health(destination, runs, day, max_duplicate_rate, max_state_mb)
    yield from check_ledger(runs, highest_event_times(destination))
    yield from check_coordinates(destination, runs)
    yield expect_no_rows(
        "each run has the rows it wrote, table by table",
        destination.query(destination.checks.rows_by_run),
        "differences",
    )
    yield from _totals(destination, runs)
    if runs[-1].status == PREPARED:
        yield CheckResult(
            "run in flight",
            NOTED,
            f"{runs[-1].run_id} is PREPARED: not judged; the next run makes it visible as a whole",
        )


def _totals(destination: Destination, runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """Control totals against the rows of the tables, per window, outcome and currency.

    The totals become visible last, so a run in flight may have committed them or not: the totals
    must add up either with its rows or without them.
    """
    settings: dict[str, Any] = runs[-1].settings
    columns = settings["amount_column"], settings["currency_column"]
    in_flight = runs[-1].status == PREPARED
    found = destination.query(destination.checks.totals_differences(*columns, not in_flight))
    if found.num_rows and in_flight:
        found = destination.query(destination.checks.totals_differences(*columns, True))
    marked = destination.query(destination.checks.unobserved_windows).column("window_start")
    unobserved = pc.is_in(found.column("window_start"), value_set=marked)
    yield expect_no_rows(
        "control totals add up to the tables",
        found.filter(pc.invert(unobserved)),
        "windows that do not add up",
    )
    if len(marked):
        figure = (
            f"{len(marked):,} windows have no complete totals: they were open when a streaming job"
            " began without a checkpoint"
        )
        yield CheckResult(
            "windows that nobody observed as a whole",
            NOTED,
            figure,
            found.filter(unobserved).slice(0, PROOF_ROWS).to_pylist(),
        )


def _day(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            raise ValueError(text)
        return date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise UsageError(f"--date={text}: not a day. Write YYYY-MM-DD.") from error


def _megabytes(text: str) -> float:
    if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
        raise UsageError(f"--max_state_mb={text}: must be a number of megabytes, such as 400.")
    return float(text)
