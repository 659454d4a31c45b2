"""`status`: who owns the tables, and what the streaming job does."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from pipeline.logs import FORMATS
from pipeline.options.arguments import Arguments, add_output_arguments, one_of, plain_parser
from pipeline.options.destination import (
    add_destination_arguments,
    add_impersonation,
    destination_of,
)
from pipeline.streaming.flink_job import find_job
from pipeline.streaming.job_report import JobReport, report_of
from pipeline.streaming.records import chain_of
from runners.flink.rest import FlinkRest, FlinkUnreachable
from transforms.destinations.contract.ownership import Ownership, owner_of
from transforms.model.errors import TryAgainLater
from transforms.model.moments import moment_in_words

_NOT_IN_FLINK: Final = (
    "Flink does not run it. `run --streaming --restore=latest` goes on, `stop --lost` hands the"
    " tables over"
)

_MARKED: Final = (
    "a process of it has met an error that a person must decide; it ends the job when it comes"
    " again: {reason}"
)


def status_parser() -> Arguments:
    """The options of `status`. Values stay text; status_command checks them."""
    parser = plain_parser(
        "payment-pipeline status",
        "Shows who owns the tables, and what the streaming job does. A DuckDB file can be looked at"
        " only while no process has it open.",
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
    """Prints the state. Raises UsageError, GuaranteeError or TryAgainLater."""
    given = status_parser().parse_strictly(argv)
    one_of("log_format", given.log_format, FORMATS)
    with destination_of(given) as destination:
        owner = owner_of(chain_of(destination))
        marks = [] if owner is None else destination.shards.read_marks(owner.generation)
    found: dict[str, Any] = {
        "owner": _as_json(owner), "stop_marks": [mark.reason for mark in marks]
    }  # fmt: skip
    lines = [_in_words(owner), *(_MARKED.format(reason=mark.reason) for mark in marks)]
    if owner is not None and given.flink_master:
        report = _report(given.flink_master, owner, now_us)
        found["job"] = None if report is None else report.as_json()
        lines += [_NOT_IN_FLINK] if report is None else report.lines()
    print(json.dumps(found) if given.json else "\n".join(lines))
    return 0


def _in_words(owner: Ownership | None) -> str:
    if owner is None:
        return "no streaming job owns the tables: bounded runs may write to them"
    return (
        f"the streaming job {owner.job_id} owns the tables since {moment_in_words(owner.since_us)}"
    )


def _as_json(owner: Ownership | None) -> dict[str, Any] | None:
    if owner is None:
        return None
    return {
        "job_id": owner.job_id, "generation": owner.generation, "since_us": owner.since_us,
    }  # fmt: skip


def _report(flink_master: str, owner: Ownership, now_us: Callable[[], int]) -> JobReport | None:
    """None: Flink does not run the job."""
    try:
        job = find_job(FlinkRest(flink_master), owner.job_id)
        return None if job is None else report_of(job, now_us())
    except FlinkUnreachable as error:
        raise TryAgainLater(
            f"--flink_master={flink_master}: Flink does not answer ({error}). Start the cluster,"
            " correct the address, or leave it out."
        ) from error
