"""What `prune` has removed, as a record of the chain tells it.

Such a record is a RunRecord without ranges, with an entry of its own in its settings. Everything
below the positions of one older record, its *border*, was removed but for what is named here; the
chain begins with the border then (chain.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from transforms.destinations.contract.ownership import STOP, ownership_of
from transforms.destinations.contract.pruning import Cut
from transforms.destinations.contract.run_ledger import ABORTED, RunRecord
from transforms.model.coordinates import TopicPartition

PRUNED: Final = "pruned"
"""Key of a record's settings, with the fields of Pruned."""


class PrunedTable(msgspec.Struct, frozen=True, kw_only=True):
    """Of one partition and one of the three tables: rows below the border.

    removed: by this record. kept: that are still there. Hashes: sum modulo 2^64 over their
    coordinates (transforms/model/coordinates.py) as 16 hexadecimal digits, since JSON numbers need
    not have 64 bits.
    """

    table: str
    removed: int
    removed_hash: str
    kept: int
    kept_hash: str


class PrunedPartition(msgspec.Struct, frozen=True, kw_only=True):
    """Of one partition: every offset from `first` to `below`, the border's position, is a row that
    is kept, or lies in a gap.

    gap_offsets: how many of them lie in gaps.
    """

    topic: str
    partition: int
    first: int
    below: int
    gap_offsets: int
    tables: tuple[PrunedTable, ...]

    @property
    def kept(self) -> int:
        """Rows that are still there."""
        return sum(table.kept for table in self.tables)


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a record of pruning says beside positions, watermarks and settings.

    border: run_id of the border. latest_us: the latest event time that was removed, microseconds
    since 1970, None where no payment was. ingested_until_us: no row that was removed was written
    later. windows_before_us: totals of earlier windows went with their rows. not_in_totals: rows of
    the tables that control_totals lack, all of them in windows that are marked as unobserved.
    """

    border: str
    latest_us: int | None
    ingested_until_us: int
    windows_before_us: int
    not_in_totals: int
    partitions: tuple[PrunedPartition, ...]

    def cut(self) -> Cut:
        """What is to be removed."""
        return Cut(
            ranges=tuple((part.topic, part.partition, 0, part.below) for part in self.partitions),
            latest_us=self.latest_us,
            ingested_until_us=self.ingested_until_us,
            windows_before_us=self.windows_before_us,
        )

    def below(self) -> dict[TopicPartition, int]:
        """Partition -> the position of the border."""
        return {(part.topic, part.partition): part.below for part in self.partitions}

    @property
    def kept(self) -> int:
        """Rows below the border that are still there."""
        return sum(part.kept for part in self.partitions)

    def removed(self) -> dict[str, int]:
        """Table -> rows that were removed."""
        rows: dict[str, int] = {}
        for part in self.partitions:
            for table in part.tables:
                rows[table.table] = rows.get(table.table, 0) + table.removed
        return rows


def pruned_of(record: RunRecord) -> Pruned | None:
    """None where the record is not one of pruning."""
    found = record.settings.get(PRUNED)
    return None if found is None else msgspec.convert(found, Pruned)


def last_pruned(runs: Iterable[RunRecord]) -> Pruned | None:
    """Of the newest record of pruning; None where there is none. runs: newest first."""
    found = (pruned_of(run) for run in runs if PRUNED in run.settings and run.status != ABORTED)
    return next(found, None)


def with_pruned(settings: dict[str, object], pruned: Pruned) -> dict[str, object]:
    """The settings of a record of pruning, as they are read back."""
    return {**settings, PRUNED: msgspec.json.decode(msgspec.json.encode(pruned))}


def rows_not_in_totals(runs: Sequence[RunRecord]) -> int:
    """Rows of the three tables that control_totals lack while no run is half visible and no job
    owns the tables. runs: the chain, or its tail.
    """
    for run in reversed(runs):
        if run.status == ABORTED:
            continue
        if (pruned := pruned_of(run)) is not None:
            return pruned.not_in_totals
        if (found := ownership_of(run)) is not None:
            return found.not_in_totals if found.kind == STOP else 0
    return 0


def judged(runs: Sequence[RunRecord]) -> Sequence[RunRecord]:
    """The records whose rows are all there: behind the border of the newest prune.

    runs: as RunHistory.read gives them.
    """
    pruned = last_pruned(reversed(runs))
    if pruned is None:
        return runs
    names = [run.run_id for run in runs]
    return runs[names.index(pruned.border) + 1 :]
