"""Step 2 of a run, before its first change: everything that may refuse it, and its first plan.

`run` and `preflight` both come here, so that what one refuses the other refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pipeline.kafka_admin import KafkaAdmin, TopicState
from pipeline.options.config import RunConfig
from pipeline.run.adopt import adopt_topics, is_on
from pipeline.run.begin import genesis_record
from pipeline.run.first_positions import first_positions
from pipeline.run.generations import Generation, current_of, way_on
from pipeline.run.make_plan import backlog, plan_next, plan_repair
from pipeline.run.notes import ForgottenTopic
from pipeline.run.plan import Plan
from pipeline.run.preconditions import (
    check_cluster,
    check_refused,
    check_same_topic,
    check_stream_quota,
)
from pipeline.run.pruned_ids import check_reaches_no_pruned
from pipeline.run.seed import check_seed, first_seed
from pipeline.run.settings import RunSettings
from pipeline.run.written_above import passed_over, written_above
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import (
    PREPARED,
    RunRecord,
    last_committed,
)
from transforms.model.errors import GuaranteeError


@dataclass(frozen=True)
class Outlook:
    """What a run is about to do.

    genesis: the record to begin with, None where the ledger has one. runs: the chain, which begins
    with it. states: the answers of the broker, one for each topic, under the ledger's names, those
    of new generations included. waiting: offsets between the
    positions and the end of the topics. plan: of the first transaction.
    forgotten: topics that the run does not name.
    """

    genesis: RunRecord | None
    runs: Sequence[RunRecord]
    cluster_id: str | None
    states: Sequence[TopicState]
    waiting: int
    plan: Plan
    forgotten: Sequence[ForgottenTopic]


def ask_topics(config: RunConfig, admin: KafkaAdmin, now_us: Callable[[], int]) -> list[TopicState]:
    """What the broker says of each topic of the run, under its name in Kafka.

    now_us: the clock, in microseconds.
    """
    return [admin.topic_state(topic, now_us()) for topic in config.topics]


def look_ahead(
    config: RunConfig,
    destination: Destination,
    admin: KafkaAdmin,
    states: Sequence[TopicState],
    runs: Sequence[RunRecord],
    settings: RunSettings,
    now_us: Callable[[], int],
) -> Outlook:
    """Makes the first plan from fresh answers of the broker. Changes nothing.

    states: see under_their_names. runs: the chain, empty where no run has been. now_us: the clock,
    in microseconds. Raises GuaranteeError where the run must be refused.
    """
    cluster_id = admin.cluster_id()
    genesis = None
    if not runs:
        first = first_positions(admin, states, config.start)
        seed = first_seed(config, destination, first.watermark_us, now_us())
        genesis = genesis_record(destination, first, seed, states, cluster_id, settings, now_us())
    chain = [genesis] if genesis else runs
    states = adopt_topics(
        config.adopt_topics, states, runs, cluster_id, config.on_data_loss == "accept"
    )
    check_cluster(chain, states, cluster_id, settings.command)
    check_refused(config.reject_records.items(), chain, states)
    waiting = backlog(chain, states)
    check_stream_quota(
        waiting, config.max_records_per_run, config.shards, destination.streams_per_hour
    )
    plan = next_plan(destination, admin, chain, states, cluster_id, settings, now_us)
    if plan.partitions:
        check_reaches_no_pruned(chain, plan.lowest_watermark_us, settings.extra_retention_us)
        check_seed(config, destination, chain, plan.lowest_watermark_us)
    forgotten = forgotten_topics(config.topics, admin, chain, cluster_id, settings.command, now_us)
    return Outlook(genesis, chain, cluster_id, states, waiting, plan, forgotten)


def forgotten_topics(
    named: Collection[str],
    admin: KafkaAdmin,
    runs: Sequence[RunRecord],
    cluster_id: str | None,
    command: str,
    now_us: Callable[[], int],
) -> list[ForgottenTopic]:
    """Topics that the ledger knows and this run does not name, with their backlog, by name.

    named: the topics of this run. command: see way_on. One that the broker cannot describe refuses
    nothing, neither does one of another cluster.
    """
    record = last_committed(runs)
    return [
        _forgotten(name, current, record, admin, cluster_id, command, now_us)
        for name, current in sorted(current_of(record).items())
        if name not in named
    ]


def _forgotten(
    name: str,
    current: Generation,
    record: RunRecord,
    admin: KafkaAdmin,
    cluster_id: str | None,
    command: str,
    now_us: Callable[[], int],
) -> ForgottenTopic:
    if not is_on(cluster_id, current.cluster_id):
        elsewhere = f"it is in the Kafka cluster {current.cluster_id}, not in {cluster_id}"
        return ForgottenTopic(name, problem=elsewhere)
    try:
        state = admin.topic_state(current.topic, now_us())
        check_same_topic(state, record.partitions, way_on(state, record, command))
    except GuaranteeError as error:
        return ForgottenTopic(name, problem=error.message)
    waiting = lost = 0
    for partition, (low, high) in state.partitions.items():
        position = current.positions.get(partition, 0)
        waiting += max(0, high - max(low, position))
        lost += max(0, low - position)
    return ForgottenTopic(name, waiting, lost)


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
            destination,
            runs,
            lambda topic: admin.topic_state(topic, now_us()),
            cluster_id,
            settings,
        )
    written = written_above(destination, runs)
    plan = plan_next(runs, states, cluster_id, settings, now_us(), written)
    return passed_over(destination, plan, written)
