"""`run`: from the last committed position to the end of the topics, transaction by transaction.

Each transaction reads at most --max_records_per_run records. The steps: pipeline/run/__init__.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext

from pipeline.interrupt import finish_before_interrupt, stop_if_interrupted
from pipeline.kafka_admin import KafkaAdmin
from pipeline.options.config import RunConfig
from pipeline.run.begin import begin, make_tables_anew, needs_tables_anew
from pipeline.run.commit import Moment, commit
from pipeline.run.look_ahead import Outlook, look_ahead, next_plan
from pipeline.run.notes import Notes
from pipeline.run.plan import Plan, PlanLimits
from pipeline.run.prepare import prove_and_prepare
from pipeline.run.progress import progress_bar
from pipeline.run.prove import prove_source
from pipeline.run.read_and_write import read_and_write
from pipeline.run.recover import recover, remove_leftovers
from pipeline.run.settings import RunSettings, check_settings, settings_in_force, settings_of
from pipeline.run.summary import note_figures, print_notes, print_summary, summarize
from transforms.deduplicate.known_ids import forget_known_ids
from transforms.deduplicate.process_memory import forget_indexes
from transforms.destinations.contract.checks import ingest_times
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import COMMITTED, RunRecord
from transforms.destinations.open import open_destination


def run_command(
    config: RunConfig, now_us: Callable[[], int] = lambda: time.time_ns() // 1000
) -> int:
    """Runs, prints the summary, returns the exit status.

    Raises GuaranteeError when it must stop; what is committed stays correct.
    """
    started, notes = time.monotonic(), Notes()
    with open_destination(config.destination, **config.destination_options) as destination:
        try:
            records = list(run_until_caught_up(config, destination, now_us, notes))
        except BaseException:
            # The refusal follows; what has become visible before it is said all the same.
            print_notes(note_figures(notes), sys.stderr)
            raise
        reasons = _rejected_reasons(destination, records) if records else {}
        bytes_read = destination.bytes_read
    seconds = time.monotonic() - started
    print_summary(summarize(records, reasons, seconds, bytes_read, notes), config.json)
    return 0


def _rejected_reasons(destination: Destination, records: Sequence[RunRecord]) -> Mapping[str, int]:
    found = destination.query(
        destination.checks.reasons, ingest_times([record.plan_time for record in records])
    )
    return {row["reason"]: row["n"] for row in found.to_pylist()}


def run_until_caught_up(
    config: RunConfig,
    destination: Destination,
    now_us: Callable[[], int],
    notes: Notes | None = None,
) -> Iterator[RunRecord]:
    """Yields the record of each transaction once it is committed.

    The end offsets are asked for once, at the start. now_us: the clock, in microseconds. notes:
    what the caller wants to know beside. Raises GuaranteeError when the run is refused, or must
    stop.
    """
    notes = Notes() if notes is None else notes
    settings = run_settings(config)
    known = recover(destination, now_us(), notes)
    check_settings(settings_in_force(known), config)
    with KafkaAdmin(config.consumer_config) as admin:
        ahead = look_ahead(config, destination, admin, known, settings, now_us)
        notes.forgotten = ahead.forgotten
        # The first changes, after everything that may refuse the run.
        plan, runs = _make_ready(config, destination, admin, ahead, settings, now_us)
        stop_if_interrupted()
        while plan.records_at_most:
            record = run_once(config, destination, admin, plan, settings, runs, notes)
            notes.add_run(destination, record, plan)
            runs = [*runs, record]
            if record.status == COMMITTED:
                admin.commit_offsets(
                    {(part.topic, part.partition): part.to_offset for part in record.partitions}
                )
                yield record
            stop_if_interrupted()
            plan = next_plan(
                destination, admin, runs, ahead.states, ahead.cluster_id, settings, now_us
            )


def _make_ready(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    ahead: Outlook,
    settings: RunSettings,
    now_us: Callable[[], int],
) -> tuple[Plan, list[RunRecord]]:
    """Creates what is missing; returns the first plan, and the chain that it follows."""
    plan, runs = ahead.plan, list(ahead.runs)
    if ahead.genesis is None:
        remove_leftovers(destination)
    if needs_tables_anew(destination, runs if ahead.genesis is None else (), config.schema):
        runs = make_tables_anew(destination, runs, config.schema, settings, now_us())
        plan = next_plan(destination, admin, runs, ahead.states, ahead.cluster_id, settings, now_us)
    destination.tables.create(config.schema)
    if ahead.genesis is not None:
        begin(destination, ahead.genesis)
    return plan, runs


def run_once(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    plan: Plan,
    settings: RunSettings,
    runs: Sequence[RunRecord],
    notes: Notes,
) -> RunRecord:
    """Steps 3 to 6 of one transaction; returns its record as the ledger has it then.

    An interrupt during 4 to 6 waits until they are done: they are short.
    """
    try:
        with (
            progress_bar(plan.records_at_most)
            if sys.stderr.isatty() and not config.json
            else nullcontext()
        ):
            read_and_write(config, destination, plan, settings)
        prove_source(plan, admin)
        with finish_before_interrupt():
            since = Moment.now()
            record = prove_and_prepare(destination, plan, settings, runs, notes)
            commit(destination, record, since)
    finally:
        forget_indexes(plan.run_id)
        forget_known_ids()
    # The record as the ledger has it now: its status has changed.
    return next(run for run in reversed(destination.runs.read()) if run.run_id == record.run_id)


def run_settings(config: RunConfig) -> RunSettings:
    """What the steps need of the configuration, and what a run record keeps of it."""
    limits = PlanLimits(
        config.dedup_horizon_us,
        config.idle_timeout_us,
        config.max_records_per_run,
        config.on_data_loss == "accept",
    )
    return RunSettings(
        limits,
        config.extra_retention_us,
        config.shards,
        settings_of(config),
        config.max_rejected_rate,
    )
