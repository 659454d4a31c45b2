"""Adopt: a job without any checkpoint takes over what is in the tables. The same steps as a
recovery, with an empty state.

It claims every shard and finalizes all registered streams of all jobs before it reads anything: a
position found while somebody still writes would be behind what he writes next. Where a shard
without state begins then stands in the ledger, as its base.
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
from transforms.stream.recover import (
    Expected,
    Polling,
    claim,
    close,
    expected_rows,
    finalize_older,
)
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
    """Once, before a job without a checkpoint is submitted; a PREPARED run has been finished
    before. Again after a crash: harmless.

    begins: every partition to be read, with the position that the run ledger knows, else its
    beginning. totals_columns: of amount and currency, to find the windows that were open and mark
    them unobserved. Raises GuaranteeError when rows that the streams took are not visible, or when
    rows are missing below what a shard has passed.
    """
    everyone = claim(destination, job, [*range(shards), TOTALS_SHARD, GAPS_SHARD], ())
    counts = {row.shard: finalize_older(destination, row) for row in everyone}
    rows = everyone[:shards]
    expected = [expected_rows(row, row.latest, counts[row.shard], ROW_TABLES) for row in rows]
    _wait_until_visible(destination, shards, rows, expected, polling)
    positions = destination.rows.first_missing(_known_begins(begins, rows))
    _require_whole(positions, rows)
    below: Offsets = {}
    for (topic, partition), position in positions.items():
        below.setdefault(topic, {})[partition] = position - 1
    found = destination.rows.count_above(shards, [ShardOffsets(row.shard, below) for row in rows])
    present = {
        row.shard: {table: found.get((row.shard, table), 0) for table in ROW_TABLES} for row in rows
    }
    present[GAPS_SHARD] = {GAPS: destination.rows.gaps_above(below).num_rows}
    begin = {
        row.shard: Progress(len(row.epochs), row.nonce, below, {}, present.get(row.shard, {}))
        for row in everyone
    }
    based = [
        row.close(counts[row.shard], base=begin[row.shard], latest=begin[row.shard])
        for row in everyone
    ]
    watermarks = _watermarks(
        destination.rows.highest_event_times(positions), positions, dedup_horizon_us
    )
    mark_unobserved(destination, *totals_columns)
    close(destination, job, everyone, based)
    return Adopted(positions, watermarks)


def _wait_until_visible(
    destination: Destination,
    shards: int,
    rows: Sequence[ShardRow],
    expected: Sequence[Mapping[str, Expected]],
    polling: Polling,
) -> None:
    """More rows than expected are fine here: bounded runs and other jobs of the past may have
    written them, and the tables are the truth.
    """
    missing = ""
    for attempt in range(polling.tries):
        if attempt:
            polling.sleep(polling.seconds)
        found = destination.rows.count_above(
            shards, [ShardOffsets(row.shard, row.latest.offsets) for row in rows]
        )
        missing = "; ".join(
            f"shard {row.shard}, {table}: {found.get((row.shard, table), 0)} rows of {one.rows}"
            for row, wanted in zip(rows, expected, strict=True)
            for table, one in wanted.items()
            if found.get((row.shard, table), 0) < one.rows
        )
        if not missing:
            return
    raise GuaranteeError(
        f"rows that were acknowledged are not visible after {polling.tries} looks: {missing}."
        " Nothing was written; start again."
    )


def _known_begins(
    begins: Mapping[TopicPartition, int], rows: Sequence[ShardRow]
) -> dict[TopicPartition, int]:
    """Below what every shard has passed nothing can be missing, and old rows may have been deleted
    there.
    """
    return {
        (topic, partition): max(
            begin, min(row.latest.offsets.get(topic, {}).get(partition, -1) for row in rows) + 1
        )
        for (topic, partition), begin in begins.items()
    }


def _require_whole(positions: Mapping[TopicPartition, int], rows: Sequence[ShardRow]) -> None:
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
