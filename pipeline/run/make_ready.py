"""Step 2 of a run, its first changes: they come after everything that may refuse it."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.kafka_admin import KafkaAdmin
from pipeline.options.config import RunConfig
from pipeline.run.begin import begin, make_tables_anew, needs_tables_anew
from pipeline.run.look_ahead import Outlook, next_plan
from pipeline.run.plan import Plan
from pipeline.run.settings import RunSettings
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import RunRecord


def make_ready(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    ahead: Outlook,
    settings: RunSettings,
    now_us: Callable[[], int],
) -> tuple[Plan, list[RunRecord]]:
    """Creates what is missing; returns the first plan, and the chain that it follows."""
    plan, runs = ahead.plan, list(ahead.runs)
    if needs_tables_anew(destination, runs if ahead.genesis is None else (), config.schema):
        runs = make_tables_anew(destination, runs, config.schema, settings, now_us())
        plan = next_plan(destination, admin, runs, ahead.states, ahead.cluster_id, settings, now_us)
    destination.tables.create(config.schema)
    if ahead.genesis is not None:
        begin(destination, ahead.genesis)
    return plan, runs
