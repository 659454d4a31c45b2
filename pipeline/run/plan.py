"""Step 2 of a run: what is read, from where to where, and what it is judged by.

Pure: answers of ledger and broker in, numbers out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.contract.run_ledger import PartitionProgress, RunRecord
from transforms.destinations.contract.seed import Seed, seed_in_settings
from transforms.model.coordinates import TopicPartition
from transforms.model.tables import GAPS
from transforms.model.topic_generations import current_generations, kafka_topic

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class PlannedPartition:
    """One partition of one run.

    from_offset to to_offset (exclusive): what this run accounts for; what lies before `read_from`
    was deleted and accepted as lost. start_watermark_us: what lateness is judged by; None: nothing
    is late. load_watermark_us: which of the earlier ids may have expired; it lies behind the start
    watermark while the horizon has just grown. position_since_us: see PartitionProgress.
    idle_watermark_us: what the watermark becomes where the run reads no payment and no duplicate;
    None where it does not read to the end of the log, or the partition has not been quiet for the
    idle timeout.
    """

    topic: str
    partition: int
    topic_id: str | None
    from_offset: int
    read_from: int
    to_offset: int
    start_watermark_us: int | None
    load_watermark_us: int | None
    position_since_us: int
    idle_watermark_us: int | None = None


@dataclass(frozen=True)
class Present:
    """What is in the tables already of what a run reads.

    offsets: per (topic, partition) and table the offsets that have a row, sorted. gaps: the rows of
    `offset_gaps` as (first, last).
    """

    offsets: Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]
    gaps: Mapping[TopicPartition, Sequence[tuple[int, int]]]

    def known(self, position: TopicPartition) -> NDArray[np.int64]:
        """Sorted offsets of one partition that have a row or lie in a gap that has one."""
        gaps = [np.arange(first, last + 1) for first, last in self.gaps.get(position, ())]
        return np.sort(np.concatenate([self.present(position), *gaps]))

    def present(self, position: TopicPartition) -> NDArray[np.int64]:
        """Sorted offsets of one partition that have a row in one of the three tables."""
        return np.sort(np.concatenate([_NONE, *self.offsets.get(position, {}).values()]))

    def rows(self, table: str) -> int:
        """Visible rows of one table."""
        if table == GAPS:
            return sum(map(len, self.gaps.values()))
        return sum(len(tables[table]) for tables in self.offsets.values() if table in tables)


NOTHING_PRESENT: Final = Present({}, {})


@dataclass(frozen=True)
class Repair(Present):
    """What is visible of a run whose other streams have expired, so that it is read again.

    expired: what that run recorded. totals: rows of `control_totals` for exactly the visible rows.
    """

    expired: RunRecord
    totals: pa.RecordBatch
    accept_data_loss: bool

    def before(self, position: TopicPartition) -> PartitionProgress:
        """What the expired run did in one partition."""
        return next(
            part for part in self.expired.partitions if (part.topic, part.partition) == position
        )


@dataclass(frozen=True)
class Plan:
    """What one run reads.

    carried: partitions that it does not read, as the ledger has them. topic_clusters: what the
    record says of topics in other clusters, see other_clusters. adopted: topics that begin a new
    generation with this run. repair: None for all but the second try of an expired run. written:
    what a streaming job has written of its ranges, which is passed over. highest_us: of partitions
    with such rows, the highest event time below their end. seed: ids that another job has paid.
    """

    run_id: str
    predecessor: str
    plan_time_us: int
    cluster_id: str | None
    partitions: tuple[PlannedPartition, ...]
    carried: tuple[PartitionProgress, ...]
    topic_clusters: Mapping[str, object]
    adopted: tuple[str, ...] = ()
    repair: Repair | None = None
    written: Present = NOTHING_PRESENT
    highest_us: Mapping[TopicPartition, int] = field(default_factory=dict)
    seed: Seed | None = None

    @property
    def in_tables(self) -> Present:
        """What is not judged and not written again."""
        return self.repair or self.written

    def passed_over(self, table: str) -> int:
        """Rows of a table that the record counts, and a streaming job has written, not this run."""
        return 0 if self.repair else self.written.rows(table)

    def present(self, position: TopicPartition) -> NDArray[np.int64]:
        """Sorted offsets that have a row already."""
        return self.in_tables.present(position)

    @property
    def carried_settings(self) -> dict[str, object]:
        """What its record has in its settings beside the configuration."""
        return {**self.topic_clusters, **seed_in_settings(self.seed)}

    @property
    def records_at_most(self) -> int:
        return sum(part.to_offset - part.from_offset for part in self.partitions)

    @property
    def has_something_to_record(self) -> bool:
        """A topic that is adopted is recorded even where it is empty."""
        return bool(self.records_at_most or self.adopted)

    @property
    def lowest_watermark_us(self) -> int | None:
        """The bound of the cold start: no partition judges by a lower watermark.

        None while nothing may be late. A repair loads what the expired run has loaded.
        """
        if self.repair is not None:
            return self.repair.expired.lowest_watermark
        return lowest(part.load_watermark_us for part in self.partitions)


@dataclass(frozen=True)
class PlanLimits:
    """From the configuration; times in microseconds. idle_timeout_us None: never."""

    dedup_horizon_us: int
    idle_timeout_us: int | None
    max_records_per_run: int
    accept_data_loss: bool


def first_watermark(
    topic: str,
    watermarks: Mapping[TopicPartition, int | None],
    known: Collection[str],
    named: Collection[str],
) -> int | None:
    """What a partition without a watermark of its own starts at: a minimum; None if all are None.

    watermarks, known: of the partitions and topics that were read before, under the ledger's names.
    named: the run's topics, under their names in Kafka. A topic that is no longer read would hold
    the minimum back for ever, so the others count only where none of the run's topics has a
    watermark, and older generations never. A new generation starts at the lowest of the one before.
    """
    current = current_generations(known)
    before = current.get(kafka_topic(topic))
    if before is not None and before != topic and (mine := _marks(watermarks, [before])):
        return min(mine)
    counting = [current[name] for name in named if name in current]
    return min(
        _marks(watermarks, counting) or _marks(watermarks, current.values()),
        default=None,
    )


def _marks(watermarks: Mapping[TopicPartition, int | None], topics: Collection[str]) -> list[int]:
    return [mark for (topic, _), mark in watermarks.items() if mark is not None and topic in topics]


def lowest(watermarks: Iterable[int | None]) -> int | None:
    """The minimum; None if one is None, or there is none."""
    values = list(watermarks)
    known = [value for value in values if value is not None]
    return min(known) if known and len(known) == len(values) else None
