"""The rows of `offset_gaps` that a prune writes in the place of what it removes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.destinations.contract.pruned import PrunedPartition
from transforms.model.partitions import sorted_groups
from transforms.model.tables import GAPS_SCHEMA, NO_RECORD, PRUNED_GAP

_PARTITION: Final = ("kafka_topic", "kafka_partition")


def gaps_instead(
    kept: pa.Table, gaps: pa.Table, parts: Iterable[PrunedPartition]
) -> pa.RecordBatch:
    """Gaps over all offsets of the partitions but for rows that stay, and gaps that tell more than
    that there is no record. Memory: 40 bytes for each run of offsets that stay.

    kept, gaps: answers of Pruning.kept_in and gaps_in, for the ranges of the cut.
    """
    stays = pa.concat_tables(
        found.select([*_PARTITION, "first_offset", "last_offset"])
        for found in (kept, gaps.filter(pc.not_equal(gaps.column("cause"), NO_RECORD)))
    )
    spans = {
        where: (runs.column("first_offset").to_numpy(), runs.column("last_offset").to_numpy())
        for where, runs in sorted_groups(stays, _PARTITION, "first_offset")
    }
    none = np.empty(0, dtype=np.int64)
    batches = [pa.RecordBatch.from_pylist([], schema=GAPS_SCHEMA)]
    for part in parts:
        starts, ends = spans.get((part.topic, part.partition), (none, none))
        holes = _between(part.first, part.below, starts, ends)
        columns = [
            [part.topic] * len(holes),
            [part.partition] * len(holes),
            holes[:, 0],
            holes[:, 1],
            [PRUNED_GAP] * len(holes),
        ]
        batches.append(
            pa.RecordBatch.from_pydict(
                dict(zip(GAPS_SCHEMA.names, columns, strict=True)), schema=GAPS_SCHEMA
            )
        )
    found = pa.Table.from_batches(batches, GAPS_SCHEMA).combine_chunks().to_batches()
    return found[0] if found else batches[0]


def _between(
    first: int, below: int, starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(first, last) of what lies between spans from `first` to `below`.

    starts, ends: of the spans, both included, sorted; they do not overlap.
    """
    holes = np.stack(
        [np.concatenate([[first], ends + 1]), np.concatenate([starts - 1, [below - 1]])], axis=1
    )
    found: NDArray[np.int64] = holes[holes[:, 0] <= holes[:, 1]]
    return found
