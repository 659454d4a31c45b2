"""`stop`: ends a streaming job and hands the tables over to bounded runs."""

from __future__ import annotations

import json
import logging
import time
from argparse import Namespace
from collections.abc import Callable, Sequence

from pipeline.counted import counted
from pipeline.logs import FORMATS
from pipeline.options.arguments import Arguments, add_output_arguments, one_of, plain_parser
from pipeline.options.destination import (
    add_destination_arguments,
    add_impersonation,
    destination_of,
)
from pipeline.streaming.flink_job import FlinkJob, find_job
from pipeline.streaming.status_command import add_flink_master
from pipeline.streaming.stop import Seen, Stopped, look_before_stop, stop_streaming
from runners.flink.rest import ENDED, FlinkRest, FlinkUnreachable
from transforms.model.errors import TryAgainLater, UsageError

_LOG = logging.getLogger(__name__)


def stop_parser() -> Arguments:
    """The options of `stop`. Values stay text; stop_command checks them."""
    parser = plain_parser(
        "payment-pipeline stop",
        "Ends the streaming job that owns the tables, and hands them over to bounded runs.",
    )
    add_destination_arguments(parser)
    add_impersonation(parser)
    add_flink_master(parser, "takes a savepoint there, and cancels the job")
    parser.add_argument(
        "--lost",
        action="store_true",
        help="the cluster is lost: only the tables are dealt with",
    )
    add_output_arguments(parser, "print one JSON object")
    return parser


def stop_command(
    argv: Sequence[str], now_us: Callable[[], int] = lambda: time.time_ns() // 1000
) -> int:
    """Prints what has become of the job.

    Raises UsageError, GuaranteeError or TryAgainLater; then `stop` is called again.
    """
    given = stop_parser().parse_strictly(argv)
    one_of("log_format", given.log_format, FORMATS)
    if bool(given.flink_master) == given.lost:
        raise UsageError(
            "give either --flink_master=HOST:PORT, the cluster that runs the job, or --lost where"
            " there is no cluster any more."
        )
    with destination_of(given, must_exist=True) as destination:
        found = look_before_stop(destination)
    stopped = found if isinstance(found, Stopped) else _stop(given, found, now_us)
    print(json.dumps(_as_json(stopped)) if given.json else _in_words(stopped))
    return 0


def _stop(given: Namespace, seen: Seen, now_us: Callable[[], int]) -> Stopped:
    if not given.lost:
        _end_job(given.flink_master, seen)
    with destination_of(given) as destination:
        return stop_streaming(destination, now_us, seen=seen)


def _end_job(flink_master: str, seen: Seen) -> None:
    """A savepoint, for those who want to come back to it, and the end of the job in Flink."""
    rest = FlinkRest(flink_master)
    try:
        job = find_job(rest, seen.job_id)
        if job is None or job.state() in ENDED:
            _LOG.warning("Flink does not run job %s; the tables are handed over", seen.job_id)
            return
        _take_savepoint(job)
        rest.cancel(job.jid)
    except (FlinkUnreachable, TimeoutError) as error:
        raise TryAgainLater(
            f"--flink_master={flink_master}: the job is not ended ({error}). Nothing was changed in"
            " the tables. Stop it again, or with --lost if the cluster does not come back."
        ) from error


def _take_savepoint(job: FlinkJob) -> None:
    """Where one can be taken: positions come from the tables, so the stop does not need it."""
    try:
        if job.state() == "RUNNING" and (savepoint := job.take_savepoint()):
            _LOG.info("savepoint: %s", savepoint)
    except (FlinkUnreachable, TimeoutError) as error:
        _LOG.warning("no savepoint (%s); the tables are enough to hand over", error)


def _as_json(stopped: Stopped) -> dict[str, object]:
    return {
        "job_id": stopped.job_id,
        "already": stopped.already,
        "record": stopped.record.run_id,
        "unobserved_windows": list(stopped.unobserved),
        "positions": [
            {"topic": part.topic, "partition": part.partition, "offset": part.to_offset}
            for part in stopped.record.partitions
        ],
    }


def _in_words(stopped: Stopped) -> str:
    if stopped.already:
        return f"job {stopped.job_id} was stopped before; nothing was changed"
    lines = [f"job {stopped.job_id} is stopped; bounded runs go on at"]
    lines += [
        f"  {part.topic}:{part.partition}: {part.to_offset:,}" for part in stopped.record.partitions
    ]
    if stopped.unobserved:
        windows = counted(len(stopped.unobserved), "window was", "windows were")
        lines.append(f"  {windows} open, with totals that are unobserved from now on")
    return "\n".join(lines)
