"""Step 2 of streaming: which offsets a shard passes with a batch.

Every read of a partition goes to every shard, so the ranges that a shard gets of a partition are
without holes. A range that does not begin behind the one before it shows that positions and state
are not of one checkpoint: records would come twice, or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.contract.shard_ledger import Offsets
from transforms.model.coordinates import TopicPartition
from transforms.model.elements import Covered, EmptyOffsets, PassedGaps, StreamBatch
from transforms.model.errors import GuaranteeError
from transforms.model.partitions import by_partition
from transforms.stream.present_rows import PresentRows


@dataclass(frozen=True)
class Passed:
    """What a shard passed in one range.

    not_delivered: offsets with a row of the shard in the tables, at which Kafka has no record any
    more; rising. All of them lie in gaps.
    """

    covered: Covered
    not_delivered: NDArray[np.int64]

    def answer(self) -> PassedGaps:
        """What the shard says of the gaps of the range."""
        return PassedGaps(
            self.covered.topic,
            self.covered.partition,
            self.covered.gaps,
            self.not_delivered.tolist(),
        )


def pass_ranges(
    shard: int, batch: StreamBatch, seen: Offsets, present: PresentRows
) -> list[Passed]:
    """Raises the highest offset in `seen` to the end of each range of the batch.

    Raises GuaranteeError for a range that does not follow the one before it, for a row outside of
    the ranges or twice, and for a present row that was neither delivered nor is in a gap.
    """
    delivered = dict(_delivered(batch))
    passed = []
    for covered in batch.covered:
        partitions = seen.setdefault(covered.topic, {})
        before = partitions.get(covered.partition)
        if before is not None and covered.first != before + 1:
            raise _not_in_order(shard, covered, before)
        offsets = delivered.pop((covered.topic, covered.partition), _NONE)
        _require_within(shard, covered, offsets)
        above = -1 if before is None else before
        known = present.between(covered.topic, covered.partition, above, covered.last)
        left = np.setdiff1d(known, offsets) if len(known) else known
        _require_in_gaps(shard, covered, left)
        partitions[covered.partition] = covered.last
        passed.append(Passed(covered, left))
    if delivered:
        (topic, partition), offsets = next(iter(delivered.items()))
        raise RuntimeError(f"shard {shard}: {topic}:{partition}:{offsets[0]} is in no range")
    return passed


def _delivered(batch: StreamBatch) -> Iterator[tuple[TopicPartition, NDArray[np.int64]]]:
    rows = pa.concat_tables(
        pa.Table.from_batches([part.select(_COORDINATE)])
        for part in (batch.payments, batch.rejected)
    )
    offsets = rows.column("kafka_offset").to_numpy()
    for topic, partition, mine in by_partition(rows):
        yield (topic, partition), offsets[mine]


def _require_within(shard: int, covered: Covered, offsets: NDArray[np.int64]) -> None:
    if not len(offsets):
        return
    rising = np.sort(offsets)
    if rising[0] < covered.first or rising[-1] > covered.last or (np.diff(rising) == 0).any():
        raise RuntimeError(
            f"shard {shard}: rows {rising[0]} to {rising[-1]} came with the range {covered.first}"
            f" to {covered.last} of {covered.topic}:{covered.partition}, or one of them twice"
        )


def _require_in_gaps(shard: int, covered: Covered, offsets: NDArray[np.int64]) -> None:
    if not len(offsets):
        return
    gaps = covered.gaps or [EmptyOffsets(-1, -1, "")]
    firsts, lasts = np.array([gap.first for gap in gaps]), np.array([gap.last for gap in gaps])
    at = np.searchsorted(firsts, offsets, side="right") - 1
    outside = offsets[(at < 0) | (offsets > lasts[at])]
    if len(outside):
        raise GuaranteeError(
            f"{covered.topic}:{covered.partition}:{outside[0]} is in the tables as a row of shard"
            f" {shard}, and Kafka delivers it with another id now: another topic of that name, or"
            " another decoder. Use a new --table_prefix, or the old decoder."
        )


def _not_in_order(shard: int, covered: Covered, before: int) -> GuaranteeError:
    where = f"shard {shard}: {covered.topic}:{covered.partition}:{covered.first}"
    what = (
        f"comes although {before} was seen before"
        if covered.first <= before
        else f"comes although {before + 1} did not"
    )
    return GuaranteeError(
        f"{where} {what}. Offsets of a partition must reach a shard once and in order; the source"
        " and the state are not of one checkpoint. Start from a complete checkpoint, or without"
        " one."
    )


_NONE: Final = np.empty(0, dtype=np.int64)
_COORDINATE: Final = ["kafka_topic", "kafka_partition", "kafka_offset"]
