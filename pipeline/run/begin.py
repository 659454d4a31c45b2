"""Step 2 of a run into an empty ledger, and the tables of a run that is the first to read.

`--start`, resolved to numbers, is written down before anything is read; so is what was paid before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.kafka_admin import TopicState
from pipeline.run.commit import Moment, mark
from pipeline.run.first_positions import FirstPositions
from pipeline.run.make_plan import new_run_id
from pipeline.run.settings import RunSettings, settings_in_force
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import refuse_owned
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    GENESIS,
    PREPARED,
    PartitionProgress,
    RunRecord,
    last_committed,
    other_clusters,
)
from transforms.destinations.contract.run_tail import with_landmarks
from transforms.destinations.contract.seed import Seed, seed_in_settings, seed_of
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.schema import PaymentSchema

MAKE_TABLES_WITHIN_SECONDS: Final = 60.0
"""From the claim on. Ten times as long after it another run goes on (recover.py)."""


def genesis_record(
    destination: Destination,
    first: FirstPositions,
    seed: Seed | None,
    states: Sequence[TopicState],
    cluster_id: str | None,
    settings: RunSettings,
    now_us: int,
) -> RunRecord:
    """The record that a chain begins with; it is not written yet.

    first: where each partition begins. seed: ids that were paid before. now_us: the plan's time, in
    microseconds.
    Raises GuaranteeError where the tables have rows although the ledger has none.
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
            from_offset=first.positions[state.topic, partition],
            to_offset=first.positions[state.topic, partition],
            records=0,
            gap_offsets=0,
            coordinate_hash=0,
            start_watermark=first.watermark_us,
            watermark=first.watermark_us,
            position_since=now_us,
        )
        for state in states
        for partition in sorted(state.partitions)
    ]
    more = {**first.recorded, **seed_in_settings(seed)}
    return _without_rows(GENESIS, None, COMMITTED, cluster_id, partitions, settings, now_us, more)


def begin(destination: Destination, genesis: RunRecord) -> None:
    """Claims the genesis record. Raises TryAgainLater where another process was first."""
    if not destination.runs.claim(genesis):
        refuse_owned(destination.runs.tail())
        raise lost_race(GENESIS)


def needs_tables_anew(
    destination: Destination, runs: Sequence[RunRecord], schema: PaymentSchema
) -> bool:
    """Whether the tables were made for another schema, by a run of which nothing was ever visible.

    runs: the chain. Columns that only the user has added are no reason.
    """
    return (
        bool(runs)
        and settings_in_force(runs) is None
        and any(run.settings["schema"] != schema.to_json() for run in runs)
        and destination.tables.are_for_another_schema(schema)
        and destination.tables.are_empty()
    )


def make_tables_anew(
    destination: Destination,
    runs: Sequence[RunRecord],
    schema: PaymentSchema,
    settings: RunSettings,
    now_us: int,
) -> list[RunRecord]:
    """Drops and creates empty payment tables, and returns the chain, which is one record longer.

    The record is claimed first, so every run that was planned before it loses its own claim: none
    can become visible in a table that is dropped here. While it is PREPARED no other run begins
    (recover.py); it is left alone for ten times as long as this process has for dropping.
    Raises GuaranteeError where another run was faster, or the time is over.
    """
    before = last_committed(runs)
    anew = _without_rows(
        new_run_id(),
        runs[-1].run_id,
        PREPARED,
        before.cluster_id,
        before.partitions,
        settings,
        now_us,
        {**other_clusters(before, before.cluster_id), **seed_in_settings(seed_of(before))},
    )
    record = with_landmarks(anew, runs)
    since = Moment.now()
    if not destination.runs.claim(record):
        refuse_owned(destination.runs.tail())
        raise lost_race(record.predecessor)
    destination.tables.make_anew(
        schema, lambda: since.must_be_recent(record.run_id, MAKE_TABLES_WITHIN_SECONDS)
    )
    mark(destination, record, COMMITTED)
    return destination.runs.tail()


def lost_race(predecessor: str | None) -> TryAgainLater:
    """The error of a run whose predecessor another run has claimed first."""
    return TryAgainLater(
        f"another run has followed {predecessor} meanwhile; of two runs from one predecessor only"
        " one may count. Nothing of this one is visible. Run one at a time into a destination."
    )


def _without_rows(
    run_id: str,
    predecessor: str | None,
    status: str,
    cluster_id: str | None,
    partitions: list[PartitionProgress],
    settings: RunSettings,
    now_us: int,
    more: Mapping[str, object],
) -> RunRecord:
    return RunRecord(
        run_id=run_id,
        predecessor=predecessor,
        status=status,
        plan_time=now_us,
        cluster_id=cluster_id,
        partitions=partitions,
        tables=[],
        lowest_watermark=None,
        live_ids=0,
        state_bytes=0,
        settings={**settings.recorded, **more},
    )
