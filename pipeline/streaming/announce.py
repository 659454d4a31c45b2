"""A job begins, and a person reads what has changed by that."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

from pipeline.kafka_admin import KafkaAdmin
from pipeline.options.config import RunConfig
from pipeline.run.generations import Adoption, adoptions
from pipeline.run.notes import Notes
from pipeline.run.summary import note_figures, print_notes
from pipeline.streaming.begin import Begun, begin_streaming, restore_streaming
from pipeline.streaming.shards import jobs_of
from pipeline.streaming.tables_end import where_tables_end
from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.contract.run_ledger import COMMITTED, RunRecord
from transforms.destinations.contract.stop_mark import StopMark
from transforms.model.moments import moment_in_words

_LOG = logging.getLogger(__name__)


def begin_and_announce(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    now_us: Callable[[], int],
    before: Sequence[RunRecord],
    *,
    shards_given: bool = True,
    take_over: bool = False,
    checkpoint: str | None = None,
    checkpoint_of: str | None = None,
) -> Begun:
    """begin_streaming, or restore_streaming with a checkpoint; what they note is printed.

    It goes to standard error, also where the job is refused after a run was finished. before: the
    chain as it was. shards_given: see begin_streaming. checkpoint: its address; checkpoint_of: the
    job that has made it, None where that is unknown. Raises what those two raise.
    """
    notes = Notes()
    try:
        if checkpoint is not None:
            _LOG.info("restoring %s", checkpoint)
            begun = restore_streaming(
                config,
                destination,
                admin,
                now_us,
                checkpoint_of=checkpoint_of,
                shards_given=shards_given,
                notes=notes,
            )
        else:
            begun = begin_streaming(
                config,
                destination,
                admin,
                now_us,
                take_over=take_over,
                shards_given=shards_given,
                notes=notes,
            )
        notes.losses += begun.losses
        notes.adopted += _adopted(config, destination, before, now_us())
    finally:
        print_notes(note_figures(notes), sys.stderr)
    if begun.lifted:
        # Another job may have begun since `before`, or behind this one.
        jobs = jobs_of(chain_of(destination), destination.runs)
        marked = jobs[jobs.index(begun.job.job_id) - 1]
        for mark in begun.lifted:
            _LOG.warning("%s", _lifted(mark, marked))
    return begun


def _adopted(
    config: RunConfig, destination: Destination, before: Sequence[RunRecord], now_us: int
) -> list[Adoption]:
    """What this begin has adopted, with the positions up to which the tables have the old topics.

    Those of the record of a job that has been taken over are where that job began.
    """
    if not config.adopt_topics:
        return []
    known = {record.run_id for record in before}
    since: list[RunRecord] = []
    for record in destination.runs.backwards():
        since.append(record)
        if record.status == COMMITTED and record.run_id in known:
            break
    runs = where_tables_end(destination, since[::-1], now_us)
    return [adoption for adoption in adoptions(runs) if adoption.run_id not in known]


def _lifted(mark: StopMark, job_id: str) -> str:
    where = mark.subject if mark.shard is None else f"{mark.subject}, shard {mark.shard}"
    since = "" if mark.since_us is None else f" at {moment_in_words(mark.since_us)}"
    return (
        f"the stop mark of job {job_id} ({where}) is lifted; it was set{since} because:"
        f" {mark.reason}"
    )
