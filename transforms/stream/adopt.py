"""Adopt: a job without any checkpoint takes over what is in the tables.

The steps are those of a recovery, with an empty state. It claims every shard and finalizes all
registered streams of all jobs before it reads anything: a position found while another process
still writes would already be stale. Where a shard without state begins then stands in the ledger,
as its base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.shard_ledger import (
    GAPS_SHARD,
    TOTALS_SHARD,
    Job,
    Offsets,
    Progress,
    ShardRow,
)
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS, ROW_TABLES
from transforms.stream.claim import claim, close, finalize_older
from transforms.stream.claimed_shard import ClaimedShard
from transforms.stream.polling import Polling
from transforms.stream.unobserved import mark_unobserved


@dataclass(frozen=True)
class Adopted:
    """Where a job without a checkpoint begins.

    positions: the first offset that is in no table and in no gap. watermarks: microseconds, from
    the rows below the position; a partition without such rows has the minimum of the others; None:
    no partition has any, so nothing is late and nothing expired.
    """

    positions: dict[TopicPartition, int]
    watermarks: dict[TopicPartition, int | None]

    @property
    def lowest_watermark_us(self) -> int | None:
        """The bound of the cold start: ids that it has expired are not loaded."""
        marks = list(self.watermarks.values())
        return (
            None
            if None in marks
            else min((mark for mark in marks if mark is not None), default=None)
        )


def adopt(
    destination: Destination,
    job: Job,
    shards: int,
    begins: Mapping[TopicPartition, int],
    dedup_horizon_us: int,
    totals_columns: tuple[str | None, str | None],
    polling: Polling,
) -> Adopted:
    """Finds where a job without a checkpoint begins, and writes it into the ledger.

    Called once, before the job is submitted and after a PREPARED run is finished; harmless when
    called again after a crash.

    begins: every partition to be read, with the position that the run ledger knows, else its
    beginning. totals_columns: of amount and currency, to find the windows that were open and mark
    them unobserved. Raises GuaranteeError when rows that the streams took are not visible, or when
    rows are missing below what a shard has passed.
    """
    every_shard = [*range(shards), TOTALS_SHARD, GAPS_SHARD]
    everyone = [
        finalize_older(destination, row, row.latest, ROW_TABLES if row.shard >= 0 else ())
        for row in claim(destination, job, every_shard, ())
    ]
    claimed = everyone[:shards]
    _wait_until_visible(destination, shards, claimed, polling)
    rows = [shard.row for shard in claimed]
    positions = destination.rows.first_missing(_known_begins(begins, rows))
    _require_whole(positions, rows)
    below: Offsets = {}
    for (topic, partition), position in positions.items():
        below.setdefault(topic, {})[partition] = position - 1
    # Rows above the positions stay where they are: a replay finds them present.
    found = destination.rows.count_above(
        shards, [ShardOffsets(shard.number, below) for shard in claimed]
    )
    present = {shard.number: _of_shard(found, shard.number) for shard in claimed}
    present[GAPS_SHARD] = {GAPS: destination.rows.gaps_above(below).num_rows}
    based = []
    for shard in everyone:
        epoch = shard.row.epochs[-1]
        begin = Progress(epoch.number, epoch.nonce, below, {}, present.get(shard.number, {}))
        based.append(shard.row.close(shard.counted, base=begin, latest=begin))
    watermarks = _watermarks(
        destination.rows.highest_event_times(positions), positions, dedup_horizon_us
    )
    mark_unobserved(destination, *totals_columns)
    # The last step: until here a crash leaves the bases as they were, and adopt begins again.
    close(destination, job, everyone, based)
    return Adopted(positions, watermarks)


def _wait_until_visible(
    destination: Destination,
    shards: int,
    claimed: Sequence[ClaimedShard],
    polling: Polling,
) -> None:
    """Waits until the tables hold all rows that the streams took; raises GuaranteeError otherwise.

    More rows are fine here: bounded runs and earlier jobs may have written them, and the tables are
    the truth.
    """

    def count() -> tuple[None, list[str]]:
        found = destination.rows.count_above(shards, [shard.offsets for shard in claimed])
        missing = [
            text for shard in claimed for text in shard.missing(_of_shard(found, shard.number))
        ]
        return None, missing

    polling.until_complete(count)


def _of_shard(counts: Mapping[tuple[int, str], int], shard: int) -> dict[str, int]:
    """Table -> rows of one shard, from (shard, table) -> rows."""
    return {table: counts.get((shard, table), 0) for table in ROW_TABLES}


def _known_begins(
    begins: Mapping[TopicPartition, int], rows: Sequence[ShardRow]
) -> dict[TopicPartition, int]:
    """Each begin, raised to what every shard has passed.

    Nothing can be missing below it, and old rows may have been deleted there.
    """
    return {
        (topic, partition): max(
            begin, min(row.latest.offsets.get(topic, {}).get(partition, -1) for row in rows) + 1
        )
        for (topic, partition), begin in begins.items()
    }


def _require_whole(positions: Mapping[TopicPartition, int], rows: Sequence[ShardRow]) -> None:
    """Raises GuaranteeError when a position lies at or below what a shard has passed."""
    for row in rows:
        for topic, partitions in row.latest.offsets.items():
            for partition, passed in partitions.items():
                if positions.get((topic, partition), passed + 1) <= passed:
                    raise GuaranteeError(
                        f"{topic}:{partition}:{positions[topic, partition]} is in no table,"
                        f" although everything up to {passed} was written."
                        " Rows were deleted, or lost by the destination; `check` says which."
                        " Restore them before you start."
                    )


def _watermarks(
    highest: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int], horizon_us: int
) -> dict[TopicPartition, int | None]:
    lowest = min(highest.values(), default=None)
    times = {partition: highest.get(partition, lowest) for partition in positions}
    return {
        partition: None if time is None else time - horizon_us for partition, time in times.items()
    }
