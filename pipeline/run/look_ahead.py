"""Step 2 of a run, before its first change: everything that may refuse it, and its first plan.

`run` and `preflight` both come here, so that what one refuses the other refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.kafka_admin import KafkaAdmin, TopicState
from pipeline.options.config import RunConfig
from pipeline.run.begin import genesis_record
from pipeline.run.make_plan import backlog, plan_next, plan_repair
from pipeline.run.plan import Plan
from pipeline.run.preconditions import check_cluster, check_refused, check_stream_quota
from pipeline.run.settings import RunSettings
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import PREPARED, RunRecord


@dataclass(frozen=True)
class Outlook:
    """What a run is about to do.

    genesis: the record to begin with, None where the ledger has one. runs: the chain, which begins
    with it. states: the answers of the broker, one for each topic. waiting: offsets between the
    positions and the end of the topics. plan: of the first transaction.
    """

    genesis: RunRecord | None
    runs: Sequence[RunRecord]
    cluster_id: str | None
    states: Sequence[TopicState]
    waiting: int
    plan: Plan


def look_ahead(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    runs: Sequence[RunRecord],
    settings: RunSettings,
    now_us: Callable[[], int],
) -> Outlook:
    """Asks the broker and makes the first plan. Changes nothing.

    runs: the chain, empty where no run has been. now_us: the clock, in microseconds. Raises
    GuaranteeError where the run must be refused.
    """
    cluster_id = admin.cluster_id()
    states = [admin.topic_state(topic, now_us()) for topic in config.topics]
    genesis = None
    if runs:
        check_cluster(runs, cluster_id)
    else:
        positions = {
            (state.topic, partition): offset
            for state in states
            for partition, offset in admin.offsets_for_start(state, config.start).items()
        }
        genesis = genesis_record(destination, positions, states, cluster_id, settings, now_us())
    chain = [genesis] if genesis else runs
    check_refused(config.reject_records.items(), chain, states)
    waiting = backlog(chain, states)
    check_stream_quota(
        waiting, config.max_records_per_run, config.shards, destination.streams_per_hour
    )
    plan = next_plan(destination, admin, chain, states, cluster_id, settings, now_us)
    return Outlook(genesis, chain, cluster_id, states, waiting, plan)


def next_plan(
    destination: Destination,
    admin: KafkaAdmin,
    runs: Sequence[RunRecord],
    states: Sequence[TopicState],
    cluster_id: str | None,
    settings: RunSettings,
    now_us: Callable[[], int],
) -> Plan:
    """The plan of the next transaction, or of the repair that the newest record needs.

    Raises GuaranteeError on lost data.
    """
    if runs[-1].status == PREPARED:
        return plan_repair(
            destination, runs[-1], lambda topic: admin.topic_state(topic, now_us()), settings
        )
    return plan_next(runs, states, cluster_id, settings, now_us())
