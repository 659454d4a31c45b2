"""A bounded run on Spark that ends, or says why it does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from runners.portable import LOOPBACK
from runners.profile import Build, Progress, RunAborted, RunnerAway
from runners.spark.failure import ONE_CONTEXT, failure_of_job, place_of_log
from runners.spark.job import JobFailed, SparkJob, running_jobs
from runners.spark.left_behind import cancel_left_behind

_LOG = logging.getLogger(__name__)

NO_PROGRESS: Final = "no_progress_seconds"
"""Flag of the profile."""


@dataclass(frozen=True)
class Patience:
    """Seconds. away: for a job server that does not answer. busy: for one with another job.

    answer: for one answer. look: between two looks at it, and at the job in hand.
    """

    away: float = 60.0
    busy: float = 600.0
    answer: float = 15.0
    look: float = 1.0


def run_on_spark(
    build: Build,
    options: PipelineOptions,
    progress: Progress,
    patience: Patience | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Builds the pipeline, hands it to the job server, and waits for its end.

    clock: monotonic, in seconds. Raises RunnerAway where the job server does not answer or stays
    busy; RunAborted where the run is lost, or nothing moves for --no_progress_seconds; StepFailed
    with the traceback of a step; and what building raises. The job is cancelled whatever ends this.
    """
    patience = patience or Patience()
    portable = options.view_as(PortableOptions)
    address = str(portable.job_endpoint)
    is_loopback = portable.environment_type == LOOPBACK
    deadline = clock() + patience.busy
    while True:
        _wait_until_free(address, is_loopback, patience, clock, sleep)
        try:
            _run_once(address, build, options, progress, patience, clock)
            return
        except JobFailed as failed:
            # The context of a job that was just cancelled ends a little later than the job.
            if ONE_CONTEXT not in str(failed):
                raise failure_of_job(str(failed), address) from None
            if clock() > deadline:
                raise RunnerAway(_busy(address, patience.busy)) from None
            _LOG.info("--job_endpoint=%s: Spark is still busy with another job; waiting", address)
            sleep(patience.look)


def look_at_job_server(options: PipelineOptions) -> str:
    """What it says now, without waiting for it. Raises RunnerAway where it does not answer."""
    address = str(options.view_as(PortableOptions).job_endpoint)
    try:
        jobs = running_jobs(address, Patience().answer)
    except grpc.RpcError as error:
        raise RunnerAway(_away(address, f"does not answer ({error.code().name})")) from None
    return f"{address} answers, and has {jobs} job(s) in hand; a run waits until it has none"


def _run_once(
    address: str,
    build: Build,
    options: PipelineOptions,
    progress: Progress,
    patience: Patience,
    clock: Callable[[], float],
) -> None:
    bound = _no_progress_seconds(options)
    job = SparkJob(address, build, options)
    try:
        seen, since = progress(), clock()
        while not job.ended.wait(patience.look):
            now = progress()
            if now != seen:
                seen, since = now, clock()
            if clock() - since > bound:
                raise RunAborted(
                    f"nothing has moved on Spark for {bound:.0f} s (--{NO_PROGRESS}), so the job is"
                    f" cancelled. {place_of_log(address)}"
                )
    except BaseException:
        job.cancel()
        raise
    try:
        job.raise_error()
    except grpc.RpcError as lost:
        raise RunAborted(
            f"Beam's job server at {address} has ended, or the connection to it is lost"
            f" ({lost.code().name}). If it has ended, its log says why"
            " (`payment-pipeline spark status` shows the place of that of `spark up`)."
        ) from None


@lru_cache(maxsize=1)
def _no_progress_seconds(options: PipelineOptions) -> float:
    """Beam reads all flags anew for each answer, 15 ms of CPU; `--every` asks for each run."""
    return float(options.get_all_options().get(NO_PROGRESS) or "inf")


def _wait_until_free(
    address: str,
    is_loopback: bool,
    patience: Patience,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Waits for a job server that is away, or busy, and says so once."""
    began = clock()
    said = None
    while True:
        try:
            if is_loopback:
                found, cancelled = cancel_left_behind(address, patience.answer)
            else:
                found, cancelled = running_jobs(address, patience.answer), 0
            if cancelled:
                _LOG.warning(
                    "--job_endpoint=%s: %d job(s) of a client that has ended, cancelled now",
                    address,
                    cancelled,
                )
            if not found:
                return
            problem, bound = f"is busy with {found} other job(s)", patience.busy
            refusal = _busy(address, bound)
        except grpc.RpcError as error:
            problem, bound = f"does not answer ({error.code().name})", patience.away
            refusal = _away(address, f"has not answered for {bound:.0f} s")
        if said != problem:
            _LOG.warning(
                "--job_endpoint=%s: the job server %s; waiting for at most %.0f s",
                address,
                problem,
                bound,
            )
            said = problem
        if clock() - began > bound:
            raise RunnerAway(refusal)
        sleep(patience.look)


def _busy(address: str, seconds: float) -> str:
    return (
        f"--job_endpoint={address}: the job server is busy with another job, {seconds:.0f} s long,"
        " and has one Spark for one job at a time. Wait for that job, or use a job server of your"
        " own (`payment-pipeline spark up --dir=DIR`). The job of a client that was killed goes on"
        " there until it ends."
    )


def _away(address: str, what: str) -> str:
    return (
        f"--job_endpoint={address}: Beam's job server {what}. Start it, or correct the address"
        " (`payment-pipeline spark status` shows that of `spark up`)."
    )
