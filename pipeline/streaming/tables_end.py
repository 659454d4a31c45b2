"""How far the tables of a streaming job are without a hole, before it is taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import owner_of
from transforms.destinations.contract.run_ledger import (
    PartitionProgress,
    RunRecord,
    carried_on,
    partitions_of,
)
from transforms.destinations.contract.shard_ledger import ShardRow
from transforms.model.coordinates import TopicPartition


def where_tables_end(
    destination: Destination, runs: Sequence[RunRecord], now_us: int
) -> list[RunRecord]:
    """The chain `runs`, its newest record with positions by the tables where a job owns them.

    What Kafka has deleted since the job began is lost only where the tables do not have it. The job
    may be writing, so these positions are for that question alone. now_us: microseconds.
    """
    if owner_of(runs) is None:
        return list(runs)
    last = runs[-1]
    rows = [row for row in destination.shards.read_all() if row.shard >= 0]
    positions = destination.rows.first_missing(passed_by_all(partitions_of(last), rows))
    return [
        *runs[:-1],
        msgspec.structs.replace(
            last,
            partitions=[
                _at(part, positions[part.topic, part.partition], now_us) for part in last.partitions
            ],
        ),
    ]


def passed_by_all(
    known: Mapping[TopicPartition, PartitionProgress], rows: Sequence[ShardRow]
) -> dict[TopicPartition, int]:
    """Each position, raised to what every shard had passed at its last recovery.

    Below it nothing is missing, and old rows may have been deleted.
    """
    passed = [
        {where: row.latest.offsets.get(where[0], {}).get(where[1], -1) + 1 for where in known}
        for row in rows
    ]
    return {
        where: max(part.to_offset, min(of_shard[where] for of_shard in passed))
        for where, part in known.items()
    }


def _at(part: PartitionProgress, position: int, now_us: int) -> PartitionProgress:
    """A partition whose position has moved may have had a payment a moment ago: it is not idle."""
    moved = carried_on(part, position)
    return (
        moved
        if position == part.to_offset
        else msgspec.structs.replace(moved, position_since=now_us)
    )
