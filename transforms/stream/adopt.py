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
from transforms.model.tables import GAPS, ROW_TABLES, TOTALS
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
    polling: Polling,
) -> Adopted:
    """Finds where a job without a checkpoint begins, and writes it into the ledger.

    Called once, before the job is submitted and after a PREPARED run is finished; harmless when
    called again after a crash.

    begins: every partition to be read, with the position that the run ledger knows, else its
    beginning. Windows that were open, or have rows above the positions, are marked as unobserved.
    Raises GuaranteeError when rows that the
    streams took are not visible, or when rows are missing below what a shard has passed.
    """
    every_shard = [*range(shards), TOTALS_SHARD, GAPS_SHARD]
    taken = claim(destination, job, every_shard, with_streams=False)
    everyone = finalize_older(destination, taken, [row.latest for row in taken])
    visible = _wait_until_visible(destination, shards, everyone, polling)
    claimed = everyone[:shards]
    rows = [shard.row for shard in claimed]
    positions = destination.rows.first_missing(_known_begins(begins, rows))
    _require_whole(positions, rows)
    below = _offsets_below(positions, rows)
    # Rows above the positions stay where they are: a replay finds them present.
    above = [ShardOffsets(shard.number, below) for shard in claimed]
    present = _count_above(destination, shards, above)
    present[GAPS_SHARD] = {GAPS: destination.rows.gaps_above(below).num_rows}
    based = []
    for shard in everyone:
        counted = shard.closed_rows(visible[shard.number])
        begin = Progress(
            shard.row.epoch,
            shard.row.ledger_id,
            below,
            {},
            present.get(shard.number, {}),
            counted,
        )
        based.append(shard.row.close(counted, base=begin, latest=begin))
    watermarks = _watermarks(
        destination.rows.highest_event_times(positions), positions, dedup_horizon_us
    )
    mark_unobserved(destination, positions)
    # The last step: until here a crash leaves the bases as they were, and adopt begins again.
    close(destination, job, everyone, based)
    return Adopted(positions, watermarks)


def _wait_until_visible(
    destination: Destination,
    shards: int,
    everyone: Sequence[ClaimedShard],
    polling: Polling,
) -> dict[int, dict[str, int]]:
    """Waits until the tables hold all rows that the streams took; raises GuaranteeError otherwise.

    Returns shard -> table -> its rows since its latest recovery. More rows are fine here: bounded
    runs and earlier jobs may have written them, and the tables are the truth.
    """
    # The others would be asked for every row since then, and nothing of theirs can be missing.
    asked = [shard for shard in everyone if shard.may_have_present]

    def count() -> tuple[dict[int, dict[str, int]], list[str]]:
        of_rows = [shard.offsets for shard in asked if shard.number >= 0]
        found = {shard.number: dict[str, int]() for shard in everyone}
        found |= _count_above(destination, shards, of_rows)
        for shard in asked:
            begin = shard.begin
            if shard.number == TOTALS_SHARD:
                offset = begin.next_offsets.get(TOTALS, 0)
                since = destination.rows.totals_since(begin.epoch, offset)
                found[TOTALS_SHARD] = {TOTALS: since.num_rows}
            elif shard.number == GAPS_SHARD:
                found[GAPS_SHARD] = {GAPS: destination.rows.gaps_above(begin.offsets).num_rows}
        return found, [text for shard in asked for text in shard.missing(found[shard.number])]

    return polling.until_complete(count)


def _count_above(
    destination: Destination, shards: int, offsets: Sequence[ShardOffsets]
) -> dict[int, dict[str, int]]:
    """Shard -> table -> its rows above the offsets."""
    counts = destination.rows.count_above(shards, offsets) if offsets else {}
    return {
        one.shard: {table: counts.get((one.shard, table), 0) for table in ROW_TABLES}
        for one in offsets
    }


def _known_begins(
    begins: Mapping[TopicPartition, int], rows: Sequence[ShardRow]
) -> dict[TopicPartition, int]:
    """Each begin, raised to what every shard has passed.

    Nothing can be missing below it, and old rows may have been deleted there.
    """
    return {where: max(begin, _passed(where, rows) + 1) for where, begin in begins.items()}


def _offsets_below(positions: Mapping[TopicPartition, int], rows: Sequence[ShardRow]) -> Offsets:
    """The offsets below the positions, and what every shard has passed where nothing is read now.

    A partition without an offset counts from its beginning: all its rows would be present for ever.
    """
    known = {
        (topic, partition)
        for row in rows
        for topic, partitions in row.latest.offsets.items()
        for partition in partitions
    }
    below: Offsets = {}
    for topic, partition in sorted(known.union(positions)):
        where = (topic, partition)
        below.setdefault(topic, {})[partition] = (
            positions[where] - 1 if where in positions else _passed(where, rows)
        )
    return below


def _passed(where: TopicPartition, rows: Sequence[ShardRow]) -> int:
    """The offset that every shard had passed at its last recovery; -1: none."""
    topic, partition = where
    return min(row.latest.offsets.get(topic, {}).get(partition, -1) for row in rows)


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
