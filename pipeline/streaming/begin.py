"""A streaming job begins: it becomes the owner of the tables, and learns where to start.

1. Everything that refuses a bounded run refuses a job (pipeline/run/preconditions.py), and a
   PREPARED run is finished first.
2. The generation of the shard ledger is read, then one statement claims the chain with a BEGIN.
   From there on no bounded run becomes visible, and a run or a stop that is half way loses. The
   number of shards is in the record, decided by the very chain that the claim compares.
3. `begin_job` follows the generation that was read before the claim: a job that begins while
   another one is being stopped is refused, or ends the stop; both never go on. It makes the rows of
   the shard ledger those of the record's number.
4. Without a checkpoint, `adopt` closes all streams and finds positions in the tables.

A crash between two steps leaves a BEGIN without a living job: `stop --lost` ends it, and
`--from_tables` or a restore follows it with a BEGIN of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from pipeline.kafka_admin import KafkaAdmin
from pipeline.options.config import NO_TRANSACTIONS, RunConfig
from pipeline.run.generations import under_their_names
from pipeline.run.look_ahead import ask_topics, look_ahead
from pipeline.run.make_ready import make_ready
from pipeline.run.notes import Loss, Notes, losses_ahead
from pipeline.run.plan import Plan, lowest
from pipeline.run.preconditions import check_clock
from pipeline.run.recover import recover
from pipeline.run.settings import check_settings, run_settings, settings_in_force
from pipeline.streaming.shards import shards_of_job
from pipeline.streaming.tables_end import where_tables_end
from pipeline.streaming.take_tables import Ready, Taken, take_tables
from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.contract.ownership import jobs_in_turn, owner_of
from transforms.destinations.contract.run_ledger import PREPARED, RunRecord
from transforms.destinations.contract.seed import Seed
from transforms.destinations.contract.shard_ledger import Job
from transforms.destinations.contract.stop_mark import StopMark
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError
from transforms.model.moments import moment_in_words
from transforms.stream.adopt import adopt
from transforms.stream.polling import Polling


@dataclass(frozen=True)
class StartPartition:
    """Where a job begins to read one partition, and what it judges lateness by, in microseconds.

    watermark_us None: nothing is late.
    """

    topic: str
    partition: int
    topic_id: str | None
    position: int
    watermark_us: int | None


@dataclass(frozen=True)
class Begun:
    """What the pipeline needs to be submitted.

    partitions: of the topics of the configuration; after a restore positions and watermarks are
    those of the ledger, and the checkpoint has its own. lowest_watermark_us: of the cold start: ids
    that it has expired are not loaded; None: all are. lifted: stop marks of the job before, which
    end with its generation. losses: offsets that the job gives up, by --on_data_loss=accept. seed:
    ids that another job has paid.
    """

    job: Job
    shards: int
    cluster_id: str | None
    partitions: tuple[StartPartition, ...]
    lowest_watermark_us: int | None
    lifted: tuple[StopMark, ...] = ()
    losses: tuple[Loss, ...] = ()
    seed: Seed | None = None


def begin_streaming(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    now_us: Callable[[], int],
    *,
    take_over: bool = False,
    shards_given: bool = True,
    polling: Polling = Polling(),
    notes: Notes | None = None,
) -> Begun:
    """A job without a checkpoint begins. now_us: the clock, in microseconds.

    take_over: also where another job owns the tables; its workers are refused from here on.
    shards_given: whether the number of the configuration must be kept to; else the one of the jobs
    before goes on. notes: learns of a run that was finished first. Raises GuaranteeError or
    TryAgainLater where the job must not begin.
    """

    def shards_behind(runs: Sequence[RunRecord]) -> int:
        owner = owner_of(runs)
        if owner is not None and not take_over:
            raise GuaranteeError(
                f"the streaming job {owner.job_id} owns the tables of this destination since"
                f" {moment_in_words(owner.since_us)}. Go on with its newest checkpoint by"
                " --restore=latest, without a checkpoint by --from_tables, or end it by"
                " `payment-pipeline stop`."
            )
        return shards_of_job(runs, config.shards, shards_given, from_tables=take_over)

    ready = _make_ready(config, destination, admin, now_us, shards_behind, notes)
    config = ready.config
    taken = take_tables(destination, ready, now_us(), restores=None)
    found = adopt(
        destination, taken.job, config.shards, taken.positions, config.dedup_horizon_us, polling
    )
    highest = destination.rows.highest_event_times(found.positions)
    reached = {where: time - config.dedup_horizon_us for where, time in highest.items()}
    return _begun(config, taken, ready.plan, found.positions, reached)


def restore_streaming(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    now_us: Callable[[], int],
    *,
    checkpoint_of: str | None = None,
    shards_given: bool = True,
    notes: Notes | None = None,
) -> Begun:
    """A job goes on from a checkpoint, under a new id and generation.

    checkpoint_of: the id of the job that has made it, where it is known. shards_given: as for
    begin_streaming. Raises GuaranteeError where a topic is to be adopted, which a checkpoint cannot
    know, or that job does not own the tables any more: what bounded runs have written since would
    stop the restored one on surplus rows, after it has claimed the tables.
    """

    def shards_behind(runs: Sequence[RunRecord]) -> int:
        jobs = jobs_in_turn(runs, destination.runs)[::-1]
        if not jobs or checkpoint_of not in (None, *jobs):
            of = f" of job {checkpoint_of}" if checkpoint_of else ""
            way = (
                f"Job {jobs[0]} owns the tables: give the path of one of its checkpoints, or start"
                " without a checkpoint, by --from_tables."
                if jobs
                else "No job owns the tables: leave --restore out, and a job goes on from them."
            )
            raise GuaranteeError(
                f"--restore: the checkpoint{of} is older than the last hand-over of the tables, so"
                " that bounded runs may have written records that it would read again; or it is of"
                f" another destination. {way}"
            )
        return shards_of_job(runs, config.shards, shards_given, from_tables=False)

    if config.adopt_topics:
        raise GuaranteeError(
            f"{config.adopt_topics[0]} with --restore: a checkpoint holds the positions of the old"
            " topic. Start without a checkpoint, by --from_tables."
        )
    ready = _make_ready(config, destination, admin, now_us, shards_behind, notes)
    taken = take_tables(destination, ready, now_us(), restores=checkpoint_of or "")
    return _begun(ready.config, taken, ready.plan, taken.positions, {})


def _make_ready(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    now_us: Callable[[], int],
    shards_behind: Callable[[Sequence[RunRecord]], int],
    notes: Notes | None,
) -> Ready:
    """Step 1: refuses, or finishes a PREPARED run and creates what is missing.

    shards_behind: the number of the job that follows this chain; raises where none may.
    """
    notes = Notes() if notes is None else notes
    known = chain_of(destination)
    check_clock(destination, known, config.max_future_skew_us, now_us)
    known = recover(destination, known, now_us(), notes)
    if known and known[-1].status == PREPARED:
        raise GuaranteeError(
            f"{known[-1].run_id} died while it became visible, and its write streams have expired,"
            " so a part of it must be read again. `payment-pipeline run` without --streaming"
            " repairs it; start the job after it."
        )
    shards = shards_behind(known)
    config = replace(config, max_records_per_run=NO_TRANSACTIONS, shards=shards)
    settings = run_settings(config)
    check_settings(settings_in_force(known), config)
    states = under_their_names(ask_topics(config, admin, now_us), known)
    judged = where_tables_end(destination, known, now_us())
    ahead = look_ahead(config, destination, admin, states, judged, settings, now_us)
    notes.forgotten = ahead.forgotten
    if ahead.genesis is None:
        notes.ignore_start(config.start)
    plan, runs = make_ready(config, destination, admin, ahead, settings, now_us)
    # The positions of the chain, not those of the tables, are carried on.
    runs = [*runs[:-1], known[-1]] if known and runs[-1].run_id == known[-1].run_id else runs
    destination.shards.create(config.shards)
    return Ready(config, runs, plan, settings)


def _begun(
    config: RunConfig,
    taken: Taken,
    plan: Plan,
    positions: Mapping[TopicPartition, int],
    reached: Mapping[TopicPartition, int],
) -> Begun:
    """reached: per partition the watermark that the rows below its position make."""
    names = [(part.topic, part.partition) for part in plan.partitions]
    marks = _highest([part.start_watermark_us for part in plan.partitions], names, reached)
    loads = _highest([part.load_watermark_us for part in plan.partitions], names, reached)
    partitions = tuple(
        StartPartition(part.topic, part.partition, part.topic_id, positions[name], marks[name])
        for name, part in zip(names, plan.partitions, strict=True)
    )
    return Begun(
        taken.job,
        config.shards,
        plan.cluster_id,
        partitions,
        lowest(loads.values()),
        taken.lifted,
        losses_ahead(plan, positions),
        plan.seed,
    )


def _highest(
    planned: Sequence[int | None],
    names: Sequence[TopicPartition],
    reached: Mapping[TopicPartition, int],
) -> dict[TopicPartition, int | None]:
    """Per partition the higher of the two; the minimum of the others where there is none."""
    marks = {
        name: max((mark for mark in (plan, reached.get(name)) if mark is not None), default=None)
        for name, plan in zip(names, planned, strict=True)
    }
    minimum = lowest([mark for mark in marks.values() if mark is not None])
    return {name: minimum if mark is None else mark for name, mark in marks.items()}
