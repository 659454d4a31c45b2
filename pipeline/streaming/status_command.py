"""`status`: who owns the tables, and what the streaming job does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from pipeline.failures import GUARANTEE_REFUSED, TRY_AGAIN_LATER
from pipeline.logs import FORMATS
from pipeline.options.arguments import Arguments, add_output_arguments, one_of, plain_parser
from pipeline.options.destination import (
    add_destination_arguments,
    add_impersonation,
    destination_of,
)
from pipeline.streaming.flink_job import find_job
from pipeline.streaming.held_file import DUCKDB, HeldFile, job_that_holds
from pipeline.streaming.job_report import report_of
from pipeline.streaming.ledger_report import ledger_report
from runners.flink.rest import ENDED, FlinkRest, FlinkUnreachable
from transforms.model.errors import FileInUse

_NOT_IN_FLINK: Final = (
    "Flink does not run it. `run --streaming --restore=latest` goes on, `stop --lost` hands the"
    " tables over"
)

_NO_WORKER: Final = (
    "its command, which is its worker, does not run: the file is free. `run --streaming"
    " --restore=latest` takes its place (--from_tables without a checkpoint), `stop` ends it"
)

_NOT_ASKED: Final = "  --flink_master=HOST:PORT shows what it does"

_NO_ANSWER: Final = (
    "--flink_master={master}: Flink does not answer, so what the job does is not known ({error})."
    " Start the cluster, or correct the address; where the cluster is lost, `stop --lost` hands the"
    " tables over, and `run --streaming --restore=latest` on another one goes on"
)


def status_parser() -> Arguments:
    """The options of `status`. Values stay text; status_command checks them."""
    parser = plain_parser(
        "payment-pipeline status",
        "Shows who owns the tables, and what the streaming job does. Where the job's command has"
        " the DuckDB file open, --flink_master shows the counters without it. Exit status 3: the"
        " job that owns the tables does not run; 5: a file in use, or Flink does not answer.",
    )
    add_destination_arguments(parser)
    add_impersonation(parser)
    add_flink_master(parser, "shows the job's counters too")
    add_output_arguments(parser, "print one JSON object")
    return parser


def add_flink_master(parser: Arguments, what_for: str) -> None:
    """Declares --flink_master as Beam does for `run`."""
    parser.add_argument(
        "--flink_master", metavar="HOST:PORT", help=f"Flink's REST address: {what_for}"
    )


def status_command(
    argv: Sequence[str], now_us: Callable[[], int] = lambda: time.time_ns() // 1000
) -> int:
    """Prints the state; returns the exit status: 5 where Flink does not say what the job does, 3
    where it says that the job, which owns the tables, does not run.

    Raises UsageError, GuaranteeError or TryAgainLater, where there is nothing to show.
    """
    given = status_parser().parse_strictly(argv)
    one_of("log_format", given.log_format, FORMATS)
    destination = destination_of(given, must_exist=True)
    try:
        with destination:
            known = ledger_report(destination)
    except FileInUse as error:
        held = _held(given.flink_master, destination.name, error, now_us)
        return _print(given.json, held.as_json(), held.lines(), held.job.ended)
    found, lines, wrong = known.as_json(), list(known.lines()), None
    if known.owner is not None and not given.flink_master:
        lines.append(_NOT_ASKED)
    if known.owner is not None and given.flink_master:
        try:
            job = find_job(FlinkRest(given.flink_master), known.owner.job_id)
            report = None if job is None else report_of(job, now_us())
        except FlinkUnreachable as error:
            found["job"] = None
            wrong = _NO_ANSWER.format(master=given.flink_master, error=error)
            return _print(given.json, found, [*lines, wrong], wrong, TRY_AGAIN_LATER)
        found["job"] = None if report is None else report.as_json()
        lines += [_NOT_IN_FLINK] if report is None else report.lines()
        wrong = _NOT_IN_FLINK if report is None else report.ended
        waits = report is not None and report.state not in ("RUNNING", *ENDED)
        if waits and destination.name.startswith(DUCKDB):
            # The worker of a job into a DuckDB file is its command, which holds the file.
            wrong = _NO_WORKER
            lines.append(f"  {wrong}")
    return _print(given.json, found, lines, wrong)


def _held(
    flink_master: str | None, destination: str, error: FileInUse, now_us: Callable[[], int]
) -> HeldFile:
    """Raises `error` where Flink is not to be asked, or runs no job that writes to this file."""
    if not flink_master:
        raise error
    try:
        path = destination.removeprefix(DUCKDB)
        held = job_that_holds(FlinkRest(flink_master), path, error.pid, now_us)
    except FlinkUnreachable as silent:
        no_answer = _NO_ANSWER.format(master=flink_master, error=silent)
        raise FileInUse(f"{error.message} {no_answer}", error.pid) from silent
    if held is None:
        raise FileInUse(
            f"{error.message} Flink at {flink_master} runs no job that writes to it.", error.pid
        ) from error
    return held


def _print(
    as_json: bool,
    found: dict[str, Any],
    lines: Iterable[str],
    wrong: str | None,
    status: int = GUARANTEE_REFUSED,
) -> int:
    """Returns the exit status. wrong: the line that says why it is not 0; None: nothing is."""
    status = 0 if wrong is None else status
    print(
        json.dumps({"exit_status": status, "error": wrong, **found})
        if as_json
        else "\n".join(lines)
    )
    return status
