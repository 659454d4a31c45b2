"""`run --streaming`: begins a job, submits it to Flink, and shows what it does."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Final

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PortableOptions

from pipeline.graph import build_streaming
from pipeline.interrupt import interrupt_means, only_record_signals
from pipeline.kafka_admin import KafkaAdmin
from pipeline.options.config import RunConfig, StreamingConfig
from pipeline.options.runner import RunnerOptions
from pipeline.streaming.announce import begin_and_announce
from pipeline.streaming.begin import Begun
from pipeline.streaming.build import streaming_job
from pipeline.streaming.flink_job import FlinkJob, find_job, flink_name
from pipeline.streaming.follow import Follower, counters_shown
from pipeline.streaming.metrics_port import ScrapedJob, serve_metrics
from pipeline.streaming.outcome import JobOutcome
from pipeline.streaming.restore import checkpoint_to_restore, note_maker
from pipeline.streaming.shards import jobs_of
from pipeline.streaming.superseded import cancel_superseded, refuse_superseded
from runners.flink.preconditions import ClusterNotReady, check_cluster
from runners.flink.rest import FlinkRest, FlinkUnreachable
from runners.flink.timer_hold import check_timer_hold
from runners.job_server import JobServerAway, check_job_server
from runners.profile import RunnerMisused, RunnerRefused
from runners.temporary_files import temporary_files_in
from runners.worker_end import broken_connections_hidden, end_worker
from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError
from transforms.stream.close_totals import close_totals
from transforms.stream.errors import StreamGone, Superseded
from transforms.stream.polling import Polling

_LOG = logging.getLogger(__name__)

_SUBMITTED_SECONDS: Final = 120.0
_WORKER_END_SECONDS: Final = 30.0

_ENDS_HERE: Final = (
    "the job has ended, since this process is its worker. `run --streaming --restore=latest` goes"
    " on; `stop` hands the tables over"
)
_GOES_ON: Final = (
    "the job goes on in Flink. `payment-pipeline status --flink_master={master}` shows it, `stop`"
    " ends it"
)
_LOOK_SECONDS: Final = 0.2


def streaming_command(
    config: RunConfig,
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    outcome: JobOutcome | None = None,
) -> int:
    """Runs until the job ends, or the command is interrupted; returns the exit status.

    outcome: learns what is known of the job; printed at the end with --json.

    Raises GuaranteeError when the job is refused, or has met an error that a person must decide.
    """
    streaming = config.streaming
    assert streaming is not None
    outcome = JobOutcome() if outcome is None else outcome
    with serve_metrics(streaming.metrics_port, now_us) as scraped:
        try:
            _run(config, streaming, scraped, now_us, outcome)
        except FlinkUnreachable as error:
            raise TryAgainLater(
                f"--flink_master={streaming.flink_master}: Flink does not answer any more"
                f" ({error}). `payment-pipeline status` shows whether a job owns the tables; then"
                " `run --streaming --restore=latest` goes on, or --from_tables where no checkpoint"
                " is there yet."
            ) from error
    if config.json:
        print(json.dumps({"exit_status": 0, "error": None, **outcome.figures()}))
    return 0


def _run(
    config: RunConfig,
    streaming: StreamingConfig,
    scraped: ScrapedJob,
    now_us: Callable[[], int],
    outcome: JobOutcome,
) -> None:
    rest = FlinkRest(streaming.flink_master)
    _check(rest, streaming, str(config.beam_options.view_as(PortableOptions).job_endpoint))
    with open_destination(config.destination, **config.destination_options) as destination:
        runs = chain_of(destination)
        before = jobs_of(runs, destination.runs)
        restored = (
            None
            if streaming.restore is None
            else checkpoint_to_restore(rest, streaming.restore, before, config.beam_options)
        )
        checkpoint = None if restored is None else restored.address
        with KafkaAdmin(config.consumer_config) as admin:
            config = replace(config, topics=_topics(config, streaming, admin))
            begun = begin_and_announce(
                config,
                destination,
                admin,
                now_us,
                runs,
                shards_given=streaming.shards_given,
                take_over=streaming.from_tables,
                checkpoint=checkpoint,
                checkpoint_of=None if restored is None else restored.made_by,
            )
        outcome.job_id, outcome.generation = begun.job.job_id, begun.job.generation
        cancel_superseded(rest, before)
        with broken_connections_hidden():
            job = _submit(config, rest, destination, begun, checkpoint)
            scraped.job = job
            outcome.flink_id, outcome.state = job.jid, job.state()
            note_maker(rest, job, begun.job.job_id)
            _LOG.info("job %s runs in Flink as %s", begun.job.job_id, job.jid)
            if streaming.detach:
                return

            def marked() -> list[str]:
                marks = destination.shards.read_marks(begun.job.generation)
                return [mark.reason for mark in marks]

            def close() -> None:
                close_totals(destination, begun.job, Polling())

            _follow(job, streaming, now_us, marked, outcome, close)
        refuse_superseded(begun.job.job_id, jobs_of(chain_of(destination), destination.runs))


def _check(rest: FlinkRest, streaming: StreamingConfig, job_endpoint: str) -> None:
    try:
        check_timer_hold()
        check_cluster(rest, streaming.parallelism)
    except RunnerMisused as error:
        raise UsageError(str(error)) from error
    except RunnerRefused as refused:
        raise GuaranteeError(str(refused)) from refused
    except ClusterNotReady as error:
        raise TryAgainLater(f"{error} Nothing was changed.") from error
    except FlinkUnreachable as error:
        raise TryAgainLater(
            f"--flink_master={rest.address}: Flink does not answer ({error}). Start the cluster, or"
            " correct the address. Nothing was changed."
        ) from error
    try:
        check_job_server(job_endpoint)
    except JobServerAway as error:
        raise TryAgainLater(
            f"--job_endpoint={job_endpoint}: {error}. Start Beam's job server, or correct the"
            " address (`payment-pipeline flink status` shows that of `flink up`). Nothing was"
            " changed."
        ) from error


def _topics(config: RunConfig, streaming: StreamingConfig, admin: KafkaAdmin) -> tuple[str, ...]:
    """The topics of --topic, and those of the broker that --topic_pattern matches."""
    if streaming.topic_pattern is None:
        return config.topics
    pattern = re.compile(streaming.topic_pattern)
    matching = [topic for topic in admin.topics() if pattern.fullmatch(topic)]
    if not (config.topics or matching):
        raise UsageError(
            f"--topic_pattern={streaming.topic_pattern}: no topic of the broker has such a name."
            " Correct it, or create the first topic."
        )
    return tuple(dict.fromkeys((*config.topics, *matching)))


def _submit(
    config: RunConfig,
    rest: FlinkRest,
    destination: Destination,
    begun: Begun,
    checkpoint: str | None,
) -> FlinkJob:
    options = config.beam_options
    options.view_as(GoogleCloudOptions).job_name = flink_name(begun.job.job_id)
    options.view_as(RunnerOptions).savepoint_path = checkpoint
    pipeline = beam.Pipeline(options=options)
    build_streaming(pipeline, streaming_job(config, destination, begun, rest.address))
    with TemporaryDirectory() as folder, temporary_files_in(folder):
        result = pipeline.run()
    deadline = time.monotonic() + _SUBMITTED_SECONDS
    while (job := find_job(rest, begun.job.job_id)) is None:
        if result.state == "FAILED" or time.monotonic() > deadline:
            raise TryAgainLater(
                f"job {begun.job.job_id} was submitted, but Flink does not run it (the job server"
                f" says {result.state}; its log says why). Nothing was read. Start again with"
                " --from_tables."
            )
        time.sleep(_LOOK_SECONDS)
    return job


def _follow(
    job: FlinkJob,
    streaming: StreamingConfig,
    now_us: Callable[[], int],
    marked: Callable[[], Sequence[str]],
    outcome: JobOutcome,
    close: Callable[[], None],
) -> None:
    """Until the job ends. An interrupt leaves it running, unless this process is its worker.

    close: writes the totals that a worker in this process owes when it has ended.
    """
    here = streaming.in_this_process
    interrupt_means(_ENDS_HERE if here else _GOES_ON.format(master=streaming.flink_master))
    try:
        with counters_shown() as (show, seconds):
            follower = Follower(job, show, now_us, marked, line_seconds=seconds)
            outcome.state = follower.until_end()
    except KeyboardInterrupt:
        if here:
            _end_with_savepoint(job, outcome, close)
        raise
    _LOG.info("the job has ended: %s", outcome.state)


def _end_with_savepoint(job: FlinkJob, outcome: JobOutcome, close: Callable[[], None]) -> None:
    """What is processed between the savepoint and the end is found in the tables by a restore."""
    only_record_signals()
    logging.disable(logging.NOTSET)
    try:
        if savepoint := job.take_savepoint():
            _LOG.info("savepoint: %s", savepoint)
    except (FlinkUnreachable, TimeoutError) as error:
        _LOG.warning("no savepoint (%s); the last checkpoint will do", error)
    try:
        job.rest.cancel(job.jid)
    except (FlinkUnreachable, TimeoutError) as error:
        _LOG.warning("the job is not cancelled (%s); it fails without this process", error)
        return
    outcome.state = "CANCELED"
    if not end_worker(_WORKER_END_SECONDS):
        return
    try:
        close()
    except (Superseded, StreamGone, GuaranteeError) as error:
        _LOG.warning("totals of open minutes are not written, so `stop` will mark them: %s", error)
