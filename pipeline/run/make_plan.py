"""Step 2 of a run: the plan, from the ledger and fresh answers of the broker.

Ranges and how they are shared, the watermark that each partition starts at, and the idle rule: when
a partition without payments follows the clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.kafka_admin import TopicState
from pipeline.run import repair
from pipeline.run.generations import topics_of, way_on
from pipeline.run.plan import (
    NOTHING_PRESENT,
    Plan,
    PlanLimits,
    PlannedPartition,
    Present,
    first_watermark,
)
from pipeline.run.preconditions import (
    check_position,
    check_repair_cluster,
    check_same_topic,
    none_vanished,
)
from pipeline.run.settings import RunSettings
from pipeline.run.written_above import behind_gap, first_absent
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import last_stop
from transforms.destinations.contract.run_ledger import (
    PartitionProgress,
    RunRecord,
    amount_and_currency,
    carried_on,
    last_committed,
    other_clusters,
    partitions_of,
    watermarks_made,
)
from transforms.destinations.contract.seed import seed_of
from transforms.model.coordinates import TopicPartition
from transforms.model.topic_generations import generation_of, kafka_topic


def make_plan(
    run_id: str,
    runs: Sequence[RunRecord],
    states: Sequence[TopicState],
    cluster_id: str | None,
    settings: RunSettings,
    now_us: int,
    written: Present = NOTHING_PRESENT,
) -> Plan:
    """Plans the next run after the chain `runs`, which begins with the genesis record.

    states: fresh answers of the broker, one per topic. now_us: the plan's time, microseconds.
    written: what is in the tables above the positions. Raises GuaranteeError on lost data.
    """
    limits = settings.limits
    last = last_committed(runs)
    known = partitions_of(last)
    known_topics = topics_of(last.partitions)
    named = {kafka_topic(state.topic) for state in states}
    carried = {where: part.watermark for where, part in known.items()}
    load = load_watermarks(runs, limits.dedup_horizon_us)
    planned = []
    for state in states:
        way = way_on(state, last, settings.command)
        check_same_topic(state, known.values(), way)
        minimum = first_watermark(state.topic, carried, known_topics, named)
        load_minimum = first_watermark(state.topic, load, known_topics, named)
        for partition, (low, _) in sorted(state.partitions.items()):
            before = known.pop((state.topic, partition), None)
            # A topic that is named for the first time begins with what retention has left of it.
            # A partition that a known topic has got since then begins with its first record ever.
            # A new generation is a topic that is named for the first time.
            position = before.to_offset if before else 0 if state.topic in known_topics else low
            present = written.known((state.topic, partition))
            # What is in the tables is not lost; and what Kafka has lost behind it would repeat.
            wanted, bounds = first_absent(position, present), state.partitions[partition]
            check_position(state, partition, wanted, bounds, limits.accept_data_loss, way)
            if len(present):
                behind = int(present[-1]) + 1
                check_position(state, partition, behind, (0, bounds[1]), True, way)
            loaded = load.get((state.topic, partition), load_minimum)
            planned.append(
                _plan_partition(state, partition, position, before, minimum, loaded, limits, now_us)
            )
        none_vanished(state, known, way)
    ends = [
        behind_gap(end, written.gaps.get((part.topic, part.partition), ()))
        for part, end in zip(planned, _share(planned, limits.max_records_per_run), strict=True)
    ]
    parts = tuple(
        replace(
            part,
            to_offset=end,
            idle_watermark_us=part.idle_watermark_us if end == part.to_offset else None,
        )
        for part, end in zip(planned, ends, strict=True)
    )
    return Plan(
        run_id,
        runs[-1].run_id,
        now_us,
        cluster_id,
        parts,
        tuple(carried_on(part) for part in known.values()),
        other_clusters(last, cluster_id),
        tuple(
            state.topic
            for state in states
            if generation_of(state.topic) > 1 and state.topic not in known_topics
        ),
        seed=seed_of(last),
    )


def backlog(runs: Sequence[RunRecord], states: Sequence[TopicState]) -> int:
    """Offsets between the committed positions and the end of the topics."""
    known = {
        (part.topic, part.partition): part.to_offset for part in last_committed(runs).partitions
    }
    return sum(
        max(0, high - max(low, known.get((state.topic, partition), low)))
        for state in states
        for partition, (low, high) in state.partitions.items()
    )


def _plan_partition(
    state: TopicState,
    partition: int,
    position: int,
    before: PartitionProgress | None,
    minimum: int | None,
    load_watermark: int | None,
    limits: PlanLimits,
    now_us: int,
) -> PlannedPartition:
    low, high = state.partitions[partition]
    watermark = before.watermark if before and before.watermark is not None else minimum
    since = before.position_since if before else now_us
    # The idle rule: what has arrived before the broker was asked for the end offset lies below it.
    # A position that has reached it, and read no payment since `since`, knows that none has come
    # until that moment. Not until `now`: there may be a backlog, and the answer may be old.
    idle = None
    if limits.idle_timeout_us is not None and watermark is not None:
        follows_clock = state.asked_at_us - limits.dedup_horizon_us
        if state.asked_at_us - since >= limits.idle_timeout_us and follows_clock > watermark:
            idle = follows_clock
    if idle is not None and position == high:
        watermark = load_watermark = idle
    return PlannedPartition(
        state.topic,
        partition,
        state.topic_id,
        position,
        max(position, low),
        high,
        watermark,
        load_watermark,
        since,
        idle,
    )


def load_watermarks(runs: Sequence[RunRecord], dedup_horizon_us: int) -> dict[TopicPartition, int]:
    """Per partition the watermark as today's horizon would have made it.

    It lies behind the recorded one where the horizon has grown since. The recorded one never goes
    back, so what is late stays late; but ids are remembered for today's horizon.
    """
    return {
        where: made.watermark - max(0, dedup_horizon_us - made.horizon_us)
        for where, made in watermarks_made(runs).items()
    }


def _share(partitions: Sequence[PlannedPartition], budget: int) -> list[int]:
    """End offsets per partition: the budget of records spread evenly.

    What one partition does not need goes to the others. Lost offsets cost nothing. Every partition
    gets at least one record, however small the budget: one that had to wait would be judged by what
    the others have read.
    """
    ends = [part.read_from for part in partitions]
    waiting = {
        index: part.to_offset - part.read_from
        for index, part in enumerate(partitions)
        if part.to_offset > part.read_from
    }
    budget = max(budget, len(waiting))
    while waiting and budget > 0:
        each = max(1, budget // len(waiting))
        for index in list(waiting):
            taken = min(each, waiting[index], budget)
            ends[index] += taken
            waiting[index] -= taken
            budget -= taken
            if not waiting[index]:
                del waiting[index]
    return ends


def plan_next(
    runs: Sequence[RunRecord],
    states: Sequence[TopicState],
    cluster_id: str | None,
    settings: RunSettings,
    now_us: int,
    written: Present = NOTHING_PRESENT,
) -> Plan:
    """Step 2: ranges, start watermarks, idle advances and the plan's time.

    They come from the last COMMITTED run and fresh answers of the broker. written: see make_plan.
    """
    return make_plan(new_run_id(), runs, states, cluster_id, settings, now_us, written)


def plan_repair(
    destination: Destination,
    runs: Sequence[RunRecord],
    ask: Callable[[str], TopicState],
    cluster_id: str | None,
    settings: RunSettings,
) -> Plan:
    """Step 2 after a PREPARED run that can be committed only in part: its ranges once more.

    runs: the chain, which ends with that run. ask: the broker's answer for one topic. cluster_id:
    of the broker. Raises GuaranteeError where records are needed that the broker does not have.
    """
    columns = amount_and_currency(settings.recorded)
    stop = last_stop(runs)
    visible = repair.visible_of(
        destination.rows, runs[-1], columns, settings.limits.accept_data_loss, stop and stop[1]
    )
    topics = repair.topics_to_read(visible)
    if topics:
        check_repair_cluster(runs[-1], topics, cluster_id)
    return repair.plan_repair(new_run_id(), visible, [ask(topic) for topic in topics])


def new_run_id() -> str:
    """A name that no other run has."""
    return f"run-{secrets.token_hex(8)}"
