"""`run`: from the last committed position to the end of the topics, transaction by transaction.

Each transaction reads at most --max_records_per_run records. The steps: pipeline/run/__init__.py.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec

from pipeline.counted import counted
from pipeline.interrupt import finish_before_interrupt, stop_if_interrupted
from pipeline.kafka_admin import KafkaAdmin
from pipeline.logs import of_run
from pipeline.options.config import RunConfig
from pipeline.run.adopt import is_on
from pipeline.run.commit import Moment, commit
from pipeline.run.generations import group_offsets, under_their_names
from pipeline.run.ids_between_runs import IdsBetweenRuns
from pipeline.run.kept import KeptBetweenRuns
from pipeline.run.look_ahead import ask_topics, look_ahead, next_plan
from pipeline.run.make_plan import backlog
from pipeline.run.make_ready import make_ready
from pipeline.run.notes import Notes
from pipeline.run.outcome import Outcome
from pipeline.run.plan import Plan
from pipeline.run.preconditions import check_clock, check_goes_on
from pipeline.run.prepare import prove_and_prepare
from pipeline.run.progress import Place, progress_shown
from pipeline.run.prove_source import prove_source
from pipeline.run.read_and_write import cold_start, read_and_write
from pipeline.run.recover import recover, remove_leftovers
from pipeline.run.repeated import repeated
from pipeline.run.settings import RunSettings, check_settings, run_settings, settings_in_force
from pipeline.run.summary import note_figures, print_notes, print_summary
from transforms.deduplicate.known_ids import forget_known_ids
from transforms.deduplicate.process_memory import forget_indexes
from transforms.destinations.contract.checks import ingest_times
from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.contract.ownership import refuse_owned
from transforms.destinations.contract.run_ledger import COMMITTED, RunRecord, last_committed
from transforms.destinations.contract.run_tail import shortened
from transforms.destinations.open import open_destination
from transforms.model.tables import REJECTED
from transforms.read import reader_pool
from transforms.read.read_records import records_read

_LOG = logging.getLogger(__name__)


def run_command(
    config: RunConfig,
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    outcome: Outcome | None = None,
) -> int:
    """Runs, prints the summary, returns the exit status.

    outcome: is filled as far as the run comes. Raises GuaranteeError when it must stop; what is
    committed stays correct.
    """
    outcome = Outcome() if outcome is None else outcome
    destination = open_destination(config.destination, **config.destination_options)
    with config.runner.session():
        run_to_the_end(config, destination, now_us, outcome)
    print_summary(outcome.figures(), config.json)
    return 0


def run_to_the_end(
    config: RunConfig,
    destination: Destination,
    now_us: Callable[[], int],
    outcome: Outcome,
    kept: KeptBetweenRuns | None = None,
    each_transaction: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Opens the destination, runs, and fills the outcome, as far as it comes.

    kept: what an earlier run of this process has left. each_transaction: a context for planning and
    running each. Raises as run_command.
    """
    started = time.monotonic()
    with destination, reader_pool.READERS.kept():
        read, billed = destination.bytes_read, destination.bytes_billed

        def attempt() -> None:
            runs = run_until_caught_up(config, destination, now_us, outcome, kept)
            while _one_more(runs, outcome, each_transaction):
                pass

        try:
            repeated(attempt, lambda: len(outcome.committed))
            outcome.rejected = _rejected_reasons(destination, outcome.committed)
        except BaseException:
            # The refusal follows; what has become visible before it is said all the same.
            print_notes(note_figures(outcome.notes), sys.stderr)
            raise
        finally:
            outcome.seconds = time.monotonic() - started
            outcome.bytes_read = _since(read, destination.bytes_read)
            outcome.bytes_billed = _since(billed, destination.bytes_billed)


def _one_more(
    runs: Iterator[RunRecord],
    outcome: Outcome,
    context: Callable[[], AbstractContextManager[None]],
) -> bool:
    """Within the context, so that a transaction that an interrupt waits for is in the outcome."""
    with context():
        record = next(runs, None)
        if record is not None:
            outcome.committed.append(record)
        return record is not None


def _since(before: int | None, now: int | None) -> int | None:
    return None if now is None else now - (before or 0)


def _rejected_reasons(
    destination: Destination, records: Sequence[RunRecord]
) -> list[dict[str, Any]]:
    times = [record.plan_time for record in records if record.rows_in(REJECTED)]
    if not times:
        return []
    found = destination.query(destination.checks.reasons, ingest_times(times))
    return list(found.to_pylist())


def run_until_caught_up(
    config: RunConfig,
    destination: Destination,
    now_us: Callable[[], int],
    outcome: Outcome | None = None,
    kept: KeptBetweenRuns | None = None,
) -> Iterator[RunRecord]:
    """Yields the record of each transaction once it is committed.

    The end offsets are asked for once, at the start. now_us: the clock, in microseconds. outcome:
    learns what the ledger and the broker say, and what the run has to say beside. kept: what an
    earlier call of this process has left. Raises GuaranteeError when the run is refused, or must
    stop.
    """
    outcome = Outcome() if outcome is None else outcome
    kept = KeptBetweenRuns(config) if kept is None else kept
    notes = outcome.notes
    settings = run_settings(config)
    known = chain_of(destination)
    check_clock(destination, known, config.max_future_skew_us, now_us)
    outcome.runs = known = recover(destination, known, now_us(), notes)
    refuse_owned(known)
    check_settings(settings_in_force(known), config)
    with kept.connected() as admin:
        outcome.states = states = under_their_names(ask_topics(config, admin, now_us), known)
        ahead = look_ahead(config, destination, admin, states, known, settings, now_us)
        notes.forgotten, outcome.states = ahead.forgotten, ahead.states
        if ahead.genesis is None:
            notes.ignore_start(config.start)
            # A run that died, or that this one has just finished, may not have come to it. Its
            # positions mean nothing in another cluster, where a topic is about to be adopted.
            before = last_committed(ahead.runs)
            if is_on(ahead.cluster_id, before.cluster_id):
                _report_positions(admin, before)
        # The first changes, after everything that may refuse the run.
        if ahead.genesis is None:
            remove_leftovers(destination)
        plan, runs = make_ready(config, destination, admin, ahead, settings, now_us)
        outcome.runs = runs
        stop_if_interrupted()
        transactions = 0
        while plan.has_something_to_record:
            more = -(-max(0, backlog(runs, ahead.states)) // config.max_records_per_run)
            outcome.run_id = plan.run_id
            place = Place(transactions + 1, transactions + more)
            record = run_once(
                config, destination, admin, plan, settings, runs, notes, place, kept.ids, now_us
            )
            notes.add_run(destination, record, plan, runs)
            outcome.runs = runs = shortened([*runs, record])
            transactions += 1
            if record.status == COMMITTED:
                _report_positions(admin, record)
                yield record
            stop_if_interrupted()
            check_goes_on(runs, config.max_future_skew_us, now_us())
            plan = next_plan(
                destination, admin, runs, ahead.states, ahead.cluster_id, settings, now_us
            )


def _report_positions(admin: KafkaAdmin, record: RunRecord) -> None:
    """Tells lag monitors how far the ledger is; a failure is logged, and stops nothing."""
    admin.commit_offsets(group_offsets(record))


def run_once(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    plan: Plan,
    settings: RunSettings,
    runs: Sequence[RunRecord],
    notes: Notes,
    place: Place,
    ids: IdsBetweenRuns,
    now_us: Callable[[], int],
) -> RunRecord:
    """Steps 3 to 6 of one transaction; returns its record as the ledger has it then.

    place: of the transaction in this command, for its log lines. ids: of the one before. An
    interrupt during 4 to 6 waits until they are done: they are short.
    """
    try:
        of_run(plan.run_id)
        start = cold_start(destination, plan, settings)
        before_it = last_committed(runs)
        ids.begin(plan, start, before_it)
        _LOG.info("%s begins: at most %s", place, counted(plan.records_at_most, "record"))
        if plan.records_at_most:
            with progress_shown(place, plan.records_at_most, config.workers_here):
                before = records_read()
                read_and_write(config, destination, plan, settings, ids.stored(before_it))
            seen = records_read() - before
            prove_source(plan, admin, seen if config.workers_here else plan.records_at_most)
        with finish_before_interrupt():
            since = Moment.now()
            record, proof = prove_and_prepare(
                destination,
                plan,
                settings,
                runs,
                notes,
                now_us(),
                lambda record, proof: ids.write(record, proof, start),
            )
            status = commit(destination, record, since)
            ids.advance(record, status, proof)
            record = msgspec.structs.replace(record, status=status)
        _LOG.info(
            "%s %s: %s",
            place,
            "is committed" if status == COMMITTED else f"is {status}",
            ", ".join(
                f"{counted(table.rows - plan.passed_over(table.table), 'row')} in {table.table}"
                for table in record.tables
            )
            or "no rows",
        )
    finally:
        forget_indexes(plan.run_id)
        forget_known_ids()
    return record
