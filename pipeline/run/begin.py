"""Step 2 of a run into an empty ledger.

`--start`, resolved to numbers, is written down before anything is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.kafka_admin import TopicState
from pipeline.run.settings import RunSettings
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    GENESIS,
    PartitionProgress,
    RunRecord,
)
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError, TryAgainLater


def begin(
    destination: Destination,
    positions: Mapping[TopicPartition, int],
    states: Sequence[TopicState],
    cluster_id: str | None,
    settings: RunSettings,
    now_us: int,
) -> list[RunRecord]:
    """Claims the genesis record, and returns the chain that begins with it.

    positions: where `--start` begins in each partition. now_us: the plan's time in microseconds.
    Raises GuaranteeError where the tables have rows although the ledger has none, TryAgainLater
    where another process has claimed first.
    """
    if not destination.tables.are_empty():
        raise GuaranteeError(
            "the tables have rows, but the ledger pipeline_runs is empty, so it is"
            " unknown which Kafka records they hold. Restore the ledger from a backup, or start"
            " with a new destination and --start=earliest."
        )
    partitions = [
        PartitionProgress(
            topic=state.topic,
            partition=partition,
            topic_id=state.topic_id,
            from_offset=positions[state.topic, partition],
            to_offset=positions[state.topic, partition],
            records=0,
            gap_offsets=0,
            coordinate_hash=0,
            start_watermark=None,
            watermark=None,
            position_since=now_us,
        )
        for state in states
        for partition in sorted(state.partitions)
    ]
    genesis = RunRecord(
        run_id=GENESIS,
        predecessor=None,
        status=COMMITTED,
        plan_time=now_us,
        cluster_id=cluster_id,
        partitions=partitions,
        tables=[],
        lowest_watermark=None,
        live_ids=0,
        state_bytes=0,
        settings=settings.recorded,
    )
    if not destination.runs.claim(genesis):
        raise lost_race(GENESIS)
    return [genesis]


def lost_race(predecessor: str | None) -> TryAgainLater:
    """The error of a run whose predecessor another run has claimed first."""
    return TryAgainLater(
        f"another run has followed {predecessor} meanwhile; of two runs from one predecessor only"
        " one may count. Nothing of this one is visible. Run one at a time into a destination."
    )
