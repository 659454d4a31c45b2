"""Control totals of present records: counted in the table that holds them.

The replay may judge such a record differently; the verdict of the table stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.deduplicate.outcome import RowShape
from transforms.destinations.contract.visible_rows import VisibleRows
from transforms.model.elements import ShardBatch
from transforms.model.fingerprints import batch_fingerprints
from transforms.model.partitions import by_partition
from transforms.model.tables import REJECTED, ROW_TABLES
from transforms.model.totals import payment_totals, rejected_totals
from transforms.stream.present_rows import ABSENT


@dataclass(frozen=True)
class PresentTotals:
    """Totals of the present records of one bundle. source: computes those that need the table."""

    shape: RowShape
    source: VisibleRows

    def of(
        self, batch: ShardBatch, tables: NDArray[np.int8], rejected_tables: NDArray[np.int8]
    ) -> list[pa.RecordBatch]:
        """Totals of the present records of a batch.

        tables, rejected_tables: per row of `batch.payments` and `batch.rejected` the index into
        ROW_TABLES of the table that holds it, or ABSENT.
        """
        amount, currency = self.shape.amount_column, self.shape.currency_column
        totals = []
        prints = batch_fingerprints(batch.payments)
        for code, table in enumerate(ROW_TABLES):
            mine = tables == code
            if mine.any():
                rows = batch.payments.filter(pa.array(mine))
                totals.append(
                    rejected_totals(rows, prints[mine])
                    if table == REJECTED
                    else payment_totals(table, rows, prints[mine], amount, currency)
                )
        still = rejected_tables == ROW_TABLES.index(REJECTED)
        if still.any():
            totals.append(
                rejected_totals(
                    batch.rejected.filter(pa.array(still)),
                    batch_fingerprints(batch.rejected)[still],
                )
            )
        # Rejected now, but a payment or duplicate then: only the table knows its amount.
        other = (rejected_tables != ABSENT) & ~still
        if other.any():
            rows = batch.rejected.filter(pa.array(other))
            offsets = rows.column("kafka_offset").to_numpy()
            totals += self.of_offsets(
                [(topic, partition, offsets[at]) for topic, partition, at in by_partition(rows)]
            )
        return totals

    def of_offsets(
        self, offsets: Iterable[tuple[str, int, NDArray[np.int64]]]
    ) -> list[pa.RecordBatch]:
        """Totals of present records of which only the table has all columns.

        offsets: (topic, partition, their offsets).
        """
        ranges = [
            (topic, partition, at, at + 1)
            for topic, partition, found in offsets
            for at in found.tolist()
        ]
        return (
            [
                self.source.present_totals(
                    ranges, self.shape.amount_column, self.shape.currency_column
                )
            ]
            if ranges
            else []
        )
