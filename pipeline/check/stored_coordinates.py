"""The coordinates that the tables hold, read by one query for all partitions.

They are kept as runs of consecutive offsets, and expanded one partition at a time.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.destinations.contract.snapshot import Snapshot
from transforms.model.coordinates import TopicPartition, expand_runs
from transforms.model.partitions import sorted_groups

_PARTITION: Final = ["kafka_topic", "kafka_partition"]


class StoredCoordinates:
    """Coordinates and gaps of all partitions.

    Memory: 40 bytes for each run of offsets, and the offsets of the one partition in use.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        questions = snapshot.checks
        runs = snapshot.query(questions.coordinate_runs)
        gaps = snapshot.query(questions.gaps)
        self._runs = _by_partition(runs, "first_offset")
        self._gaps = _by_partition(gaps, "first_offset")
        self._repeated: dict[TopicPartition, pa.Table] = {}
        lengths = pc.add(pc.subtract(runs.column("last_offset"), runs.column("first_offset")), 1)
        if pc.any(pc.not_equal(runs.column("n"), lengths)).as_py():
            # Only when there is one: BigQuery bills the bytes that a query reads, and this query
            # reads every coordinate a second time.
            self._repeated = _by_partition(
                snapshot.query(questions.repeated_coordinates), "kafka_offset"
            )

    def partitions(self) -> set[TopicPartition]:
        """The partitions with a row or a gap."""
        return self._runs.keys() | self._gaps.keys()

    def offsets(self, topic_partition: TopicPartition) -> NDArray[np.int64]:
        """Offsets that have a row, sorted; an offset with several rows comes as often."""
        first, last = _columns(self._runs.get(topic_partition), "first_offset", "last_offset")
        offsets = expand_runs(first, last)
        if topic_partition not in self._repeated:
            return offsets
        twice, copies = _columns(self._repeated[topic_partition], "kafka_offset", "n")
        rows = np.ones(len(offsets), dtype=np.int64)
        rows[np.searchsorted(offsets, twice)] = copies
        return np.repeat(offsets, rows)

    def repeated(self, topic_partition: TopicPartition) -> tuple[NDArray[np.int64], list[str]]:
        """Sorted offsets with several rows, and for each the names of the tables that hold them."""
        found = self._repeated.get(topic_partition)
        holders: list[str] = [] if found is None else found.column("tables").to_pylist()
        return _columns(found, "kafka_offset")[0], holders

    def gaps(self, topic_partition: TopicPartition) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(first, last) of the rows of offset_gaps, sorted by first."""
        first, last = _columns(self._gaps.get(topic_partition), "first_offset", "last_offset")
        return first, last


def _by_partition(found: pa.Table, within: str) -> dict[TopicPartition, pa.Table]:
    return {
        (topic, partition): rows
        for (topic, partition), rows in sorted_groups(found, _PARTITION, within)
    }


def _columns(found: pa.Table | None, *names: str) -> list[NDArray[np.int64]]:
    if found is None:
        return [np.empty(0, dtype=np.int64) for _ in names]
    return [found.column(name).to_numpy() for name in names]
