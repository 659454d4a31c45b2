"""What a run has to say beside the records of its transactions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pipeline.options.config import Start
from pipeline.run.generations import Adoption, adoptions
from pipeline.run.plan import Plan
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    COMMITTED,
    RunRecord,
    last_committed,
)
from transforms.model.coordinates import TopicPartition
from transforms.model.rejected_counts import RejectedCount
from transforms.model.tables import ROW_TABLES

FINISHED: Final = "finished"
PLANNED_AGAIN: Final = "planned again"
REPAIRED: Final = "repaired"


@dataclass(frozen=True)
class ForgottenTopic:
    """A topic that the ledger knows and `--topic` does not name.

    waiting: records behind its positions; lost: offsets that were deleted before they were read.
    problem: why the broker cannot say so, else None.
    """

    topic: str
    waiting: int = 0
    lost: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Recovered:
    """What has become of a run that had died, or whose write streams had expired.

    how: FINISHED, PLANNED_AGAIN (nothing of it was visible) or REPAIRED. rows: of its tables of
    records, none where it is planned again.
    """

    run_id: str
    how: str
    rows: dict[str, int]


@dataclass(frozen=True)
class Loss:
    """Offsets, first and last included, that were deleted before they were read: accepted."""

    topic: str
    partition: int
    first: int
    last: int


@dataclass
class Notes:
    """Filled while the run goes on.

    rejected: what the committed transactions have rejected, by cause. losses, adopted: accepted by
    what has become visible in this run. start_ignored: the value of --start, or of the
    flag start_flag, where it has no effect.
    passed_over: rows by table that lay above the positions, since a streaming job has written them;
    the records of the transactions count them.
    """

    rejected: list[RejectedCount] = field(default_factory=list)
    forgotten: Sequence[ForgottenTopic] = ()
    recovered: list[Recovered] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    start_ignored: str | None = None
    start_flag: str = "start"
    adopted: list[Adoption] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)

    def ignore_start(self, start: Start) -> None:
        """The ledger has positions already. Nothing is noted where no flag was given."""
        self.start_ignored, self.start_flag = start.given, start.flag

    def add_recovered(
        self, destination: Destination, record: RunRecord, runs: Sequence[RunRecord]
    ) -> None:
        """A run that was PREPARED when this process found it, as the ledger has it now.

        runs: the chain up to it at least. One that is PREPARED still is noted with its repair. One
        without tables had none to show.
        """
        if record.status == ABORTED:
            self.recovered.append(Recovered(record.run_id, PLANNED_AGAIN, {}))
        elif record.status == COMMITTED and record.tables:
            self.recovered.append(Recovered(record.run_id, FINISHED, _rows(record)))
            self._add_losses(destination, record)
            self._add_adopted(record, runs)

    def add_run(
        self, destination: Destination, record: RunRecord, plan: Plan, runs: Sequence[RunRecord]
    ) -> None:
        """A run of this process, as the ledger has it now. runs: the chain before it."""
        if record.status == ABORTED:
            self.recovered.append(Recovered(record.run_id, PLANNED_AGAIN, {}))
        if record.status != COMMITTED:
            return
        if record.repairs is not None:
            self.recovered.append(Recovered(record.repairs, REPAIRED, _rows(record)))
        if plan.repair or any(part.read_from > part.from_offset for part in plan.partitions):
            self._add_losses(destination, record)
        self.passed_over.update(
            {table: rows for table in ROW_TABLES if (rows := plan.passed_over(table))}
        )
        self._add_adopted(record, runs)

    def _add_adopted(self, record: RunRecord, runs: Sequence[RunRecord]) -> None:
        before = last_committed([run for run in runs if run.run_id != record.run_id])
        self.adopted += adoptions([before, record])

    def _add_losses(self, destination: Destination, record: RunRecord) -> None:
        ranges = [
            (part.topic, part.partition, part.from_offset, part.to_offset)
            for part in record.partitions
            if part.gap_offsets
        ]
        if ranges:
            self.losses += [
                Loss(topic, partition, first, last)
                for (topic, partition), lost in destination.rows.lost_offsets(ranges).items()
                for first, last in lost
            ]


def losses_ahead(plan: Plan, positions: Mapping[TopicPartition, int]) -> tuple[Loss, ...]:
    """What a streaming job will write to `offset_gaps` as lost, where Kafka has deleted it.

    positions: by the tables, where they are further than those of the plan. At most: above a hole
    that a killed process has left, some of these offsets may have their row already.
    """
    ranges = [
        (part, max(part.from_offset, positions[part.topic, part.partition]))
        for part in plan.partitions
    ]
    return tuple(
        Loss(part.topic, part.partition, first, part.read_from - 1)
        for part, first in ranges
        if first < part.read_from
    )


def _rows(record: RunRecord) -> dict[str, int]:
    return {table.table: table.rows for table in record.tables if table.table in ROW_TABLES}
