"""Rows of a shard that are in the tables already, although its state is not so far yet: step 1 (c) of streaming, and how step 2 finds them.

A row is present by its coordinate. Its fingerprint must agree as well: a coordinate with another id means that the topic is another one, or
that the record is decoded in another way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.deduplicate.fingerprint_index import Fingerprints
from transforms.destinations.contract.shard_ledger import Offsets
from transforms.model.elements import FINGERPRINT, FINGERPRINT_BYTES
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS, ROW_TABLES, TOTALS

ABSENT: Final = -1
"""Instead of an index into ROW_TABLES: the coordinate is in no table."""


KEY_COLUMNS: Final = {
    **dict.fromkeys(ROW_TABLES, ("kafka_topic", "kafka_partition", "kafka_offset")),
    GAPS: ("kafka_topic", "kafka_partition", "first_offset"),
    TOTALS: ("stream_epoch", "stream_offset"),
}
"""What tells one row of a table from every other that streaming writes."""


PRESENT_SCHEMA: Final = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("table_name", pa.string(), nullable=False),
        pa.field("kafka_topic", pa.string(), nullable=False),
        pa.field("kafka_partition", pa.int32(), nullable=False),
        pa.field("kafka_offset", pa.int64(), nullable=False),
        pa.field("fingerprint", FINGERPRINT, nullable=False),
        pa.field("event_time_us", pa.int64()),
    ]
)


@dataclass(frozen=True)
class ShardFloor:
    """Where the rows of a shard begin to be of interest: above `offsets`; a partition that is not in it counts from its beginning."""

    shard: int
    offsets: Offsets


class PresentSource(Protocol):
    """A destination that can say what of a shard is in its tables."""

    def rows_above(self, shards: int, floors: Sequence[ShardFloor], oldest_event_time_us: int | None) -> pa.Table:
        """Rows of the three tables that belong to one of the `floors`' shards (of `shards`) and lie above its offsets; PRESENT_SCHEMA.

        One query, whatever the number of shards. oldest_event_time_us bounds the two payment tables, which are partitioned by it; None: no
        bound. The shard of a row is computed from its `transaction_id`, or from its coordinate where it has none (transforms/model/fingerprints.py).
        """

    def count_above(self, shards: int, floors: Sequence[ShardFloor]) -> dict[tuple[int, str], int]:
        """(shard, table) -> number of the rows that `rows_above` would return without a bound; absent where there are none."""

    def count_present(self, table: str, rows: pa.RecordBatch) -> int:
        """How many of `rows` have a row with the same KEY_COLUMNS in `table`."""

    def first_missing(self, begins: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """(topic, partition) -> the first offset from its begin on that is in none of the three tables and in no gap."""

    def highest_event_times(self, ends: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        """(topic, partition) -> highest event time (microseconds) of payments and duplicates below its end; absent where there are none."""


@dataclass(frozen=True)
class _Partition:
    """Rows of one partition, in offset order. tables: index into ROW_TABLES."""

    offsets: NDArray[np.int64]
    tables: NDArray[np.int8]
    fingerprints: Fingerprints


class PresentRows:
    """The present rows of one shard. Immutable: what the replay has passed is a matter of the offsets that it is asked with."""

    def __init__(self, rows: pa.Table) -> None:
        """rows: PRESENT_SCHEMA. Raises GuaranteeError when a coordinate comes twice."""
        codes = np.array([ROW_TABLES.index(name) for name in rows.column("table_name").to_pylist()], dtype=np.int8)
        self._times: NDArray[np.int64] = pc.fill_null(rows.column("event_time_us"), 0).to_numpy()
        self._codes = codes
        self._fingerprints = _fingerprints(rows)
        self._partitions: dict[tuple[str, int], _Partition] = {}
        all_offsets = rows.column("kafka_offset").to_numpy()
        for topic, partition, mine in by_partition(rows):
            order = mine[np.argsort(all_offsets[mine], kind="stable")]
            offsets = all_offsets[order]
            if (repeated := offsets[1:][offsets[1:] == offsets[:-1]]).size:
                raise GuaranteeError(f"{topic}:{partition}:{repeated[0]} has two rows in the tables. `check` lists all of them.")
            self._partitions[topic, partition] = _Partition(offsets, codes[order], self._fingerprints[order])

    def left(self, offsets: Offsets) -> dict[str, int]:
        """Table -> rows above `offsets`."""
        counts = np.zeros(len(ROW_TABLES), dtype=np.int64)
        for (topic, partition), rows in self._partitions.items():
            first = np.searchsorted(rows.offsets, offsets.get(topic, {}).get(partition, -1), side="right")
            counts += np.bincount(rows.tables[first:], minlength=len(ROW_TABLES))
        return dict(zip(ROW_TABLES, counts.tolist(), strict=True))

    def tables_of(self, rows: pa.RecordBatch, fingerprints: Fingerprints) -> NDArray[np.int8]:
        """Per row of a batch the index into ROW_TABLES of the table that holds its coordinate, or ABSENT.

        Raises GuaranteeError when the coordinate is there with another fingerprint.
        """
        found = np.full(rows.num_rows, ABSENT, dtype=np.int8)
        if not self._partitions:
            return found
        offsets = rows.column("kafka_offset").to_numpy()
        for topic, partition, mine in by_partition(rows):
            known = self._partitions.get((topic, partition))
            if known is None:
                continue
            at = np.minimum(np.searchsorted(known.offsets, offsets[mine]), len(known.offsets) - 1)
            hit = known.offsets[at] == offsets[mine]
            differs = (known.fingerprints[at[hit]] != fingerprints[mine[hit]]).any(axis=1)
            if differs.any():
                raise GuaranteeError(
                    f"{topic}:{partition}:{offsets[mine[hit]][differs][0]} is in {ROW_TABLES[known.tables[at[hit]][differs][0]]} with another"
                    " id than Kafka delivers now: another topic of that name, or another decoder. Use a new --table_prefix, or the old decoder."
                )
            found[mine[hit]] = known.tables[at[hit]]
        return found

    def between(self, topic: str, partition: int, above: int, up_to: int) -> NDArray[np.int64]:
        """Offsets of the rows in (above, up_to], rising."""
        known = self._partitions.get((topic, partition))
        if known is None:
            return np.empty(0, dtype=np.int64)
        return known.offsets[np.searchsorted(known.offsets, above, "right") : np.searchsorted(known.offsets, up_to, "right")]

    def of_table(self, table: str) -> tuple[Fingerprints, NDArray[np.int64]]:
        """Fingerprints and event times (microseconds) of the rows in one payment table."""
        mine = self._codes == ROW_TABLES.index(table)
        return self._fingerprints[mine], self._times[mine]


def by_partition(rows: pa.RecordBatch | pa.Table) -> Iterator[tuple[str, int, NDArray[np.int64]]]:
    """(topic, partition, indexes of its rows in their order); nothing for no rows."""
    if not rows.num_rows:
        return
    topics = pc.dictionary_encode(rows.column("kafka_topic"))
    topics = topics.combine_chunks() if isinstance(topics, pa.ChunkedArray) else topics
    codes = topics.indices.to_numpy()
    partitions = rows.column("kafka_partition").to_numpy()
    for code, topic in enumerate(topics.dictionary.to_pylist()):
        for partition in np.unique(partitions[codes == code]).tolist():
            yield topic, partition, np.flatnonzero((codes == code) & (partitions == partition))


def _fingerprints(rows: pa.Table) -> Fingerprints:
    data = b"".join(rows.column("fingerprint").to_pylist())
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, FINGERPRINT_BYTES)


NO_ROWS: Final = PresentRows(PRESENT_SCHEMA.empty_table())
