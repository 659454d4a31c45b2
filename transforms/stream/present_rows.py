"""Present rows of a shard: in the tables already, although its state has not come so far.

Step 1 (c) of streaming loads them, step 2 looks records up in them. A row is present by its
coordinate. Its fingerprint must agree as well: a coordinate with another id means that the topic is
another one, or that the record is decoded in another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from transforms.destinations.contract.present_rows import PRESENT_SCHEMA
from transforms.destinations.contract.shard_ledger import Offsets
from transforms.model.coordinates import TopicPartition
from transforms.model.errors import GuaranteeError
from transforms.model.fingerprints import FINGERPRINT_BYTES, Fingerprints
from transforms.model.partitions import by_partition
from transforms.model.tables import ROW_TABLES

ABSENT: Final = -1
"""Takes the place of an index into ROW_TABLES: the coordinate is in no table."""


@dataclass(frozen=True)
class _Partition:
    """Rows of one partition, in offset order. tables: index into ROW_TABLES."""

    offsets: NDArray[np.int64]
    tables: NDArray[np.int8]
    fingerprints: Fingerprints


class PresentRows:
    """The present rows of one shard.

    Immutable: each question carries the offsets that the replay has passed.
    """

    def __init__(self, rows: pa.Table) -> None:
        """rows: PRESENT_SCHEMA. Raises GuaranteeError when a coordinate comes twice."""
        codes = np.array(
            [ROW_TABLES.index(name) for name in rows.column("table_name").to_pylist()],
            dtype=np.int8,
        )
        self._times: NDArray[np.int64] = pc.fill_null(rows.column("event_time_us"), 0).to_numpy()
        self._codes = codes
        self._fingerprints = _fingerprints(rows)
        self._partitions: dict[TopicPartition, _Partition] = {}
        all_offsets = rows.column("kafka_offset").to_numpy()
        for topic, partition, mine in by_partition(rows):
            order = mine[np.argsort(all_offsets[mine], kind="stable")]
            offsets = all_offsets[order]
            if (repeated := offsets[1:][offsets[1:] == offsets[:-1]]).size:
                raise GuaranteeError(
                    f"{topic}:{partition}:{repeated[0]} has two rows in the tables. `check` lists"
                    " all of them."
                )
            self._partitions[topic, partition] = _Partition(
                offsets, codes[order], self._fingerprints[order]
            )

    def left(self, offsets: Offsets) -> dict[str, int]:
        """Table -> number of rows above `offsets`."""
        counts = np.zeros(len(ROW_TABLES), dtype=np.int64)
        for (topic, partition), rows in self._partitions.items():
            first = np.searchsorted(
                rows.offsets, offsets.get(topic, {}).get(partition, -1), side="right"
            )
            counts += np.bincount(rows.tables[first:], minlength=len(ROW_TABLES))
        return dict(zip(ROW_TABLES, counts.tolist(), strict=True))

    def tables_of(self, rows: pa.RecordBatch, fingerprints: Fingerprints) -> NDArray[np.int8]:
        """Per row of a batch the table that holds its coordinate: index into ROW_TABLES, or ABSENT.

        fingerprints: of the rows, shape (n, 10). Raises GuaranteeError when a coordinate is in a
        table with another fingerprint.
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
                    f"{topic}:{partition}:{offsets[mine[hit]][differs][0]} is in"
                    f" {ROW_TABLES[known.tables[at[hit]][differs][0]]} with another"
                    " id than Kafka delivers now: another topic of that name, or another decoder."
                    " Use a new --table_prefix, or the old decoder."
                )
            found[mine[hit]] = known.tables[at[hit]]
        return found

    def between(self, topic: str, partition: int, above: int, up_to: int) -> NDArray[np.int64]:
        """Offsets of the rows in (above, up_to], rising."""
        known = self._partitions.get((topic, partition))
        if known is None:
            return np.empty(0, dtype=np.int64)
        return known.offsets[
            np.searchsorted(known.offsets, above, "right") : np.searchsorted(
                known.offsets, up_to, "right"
            )
        ]

    def of_table(self, table: str) -> tuple[Fingerprints, NDArray[np.int64]]:
        """Fingerprints and event times (microseconds) of the rows in one payment table."""
        mine = self._codes == ROW_TABLES.index(table)
        return self._fingerprints[mine], self._times[mine]


def _fingerprints(rows: pa.Table) -> Fingerprints:
    data = b"".join(rows.column("fingerprint").to_pylist())
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, FINGERPRINT_BYTES)


NO_ROWS: Final = PresentRows(PRESENT_SCHEMA.empty_table())
