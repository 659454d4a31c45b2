"""Control totals per event-time window, outcome and currency.

They prove that the rows of the dedup step arrive in the tables. They cannot show a wrong verdict of
the dedup step; the tests against an oracle do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.model.buckets import BUCKET_US
from transforms.model.fingerprints import Fingerprints, split_fingerprints
from transforms.model.tables import (
    DUPLICATES,
    NUMERIC,
    PAYMENTS,
    REJECTED,
    TIMESTAMP,
    TOTALS_SCHEMA,
)

OUTCOME_OF_TABLE: Final = {PAYMENTS: "accepted", DUPLICATES: "duplicate", REJECTED: "rejected"}
UNOBSERVED: Final = "unobserved"
"""Outcome of a row that adds nothing: the totals of its window are incomplete.

See transforms/stream/unobserved.py.
"""

CHECKSUM_MASK: Final = (1 << 60) - 1
"""Checksums are kept modulo 2^60, so that they fit INT64."""

_KEYS: Final = ["window_start", "outcome", "currency"]
_SUMS: Final = [("records", "sum"), ("amount", "sum"), ("checksum", "sum")]


def payment_totals(
    table: str,
    rows: pa.RecordBatch,
    fingerprints: Fingerprints,
    amount_column: str | None,
    currency_column: str | None,
) -> pa.RecordBatch:
    """Totals of rows of a payment table.

    Without an amount or a currency column the totals count records and checksums alone.
    """
    amount = (
        rows.column(amount_column).cast(NUMERIC) if amount_column else pa.nulls(len(rows), NUMERIC)
    )
    currency = (
        rows.column(currency_column).cast(pa.string())
        if currency_column
        else pa.nulls(len(rows), pa.string())
    )
    return _totals(table, rows.column("event_time"), fingerprints, amount, currency)


def rejected_totals(rows: pa.RecordBatch, fingerprints: Fingerprints) -> pa.RecordBatch:
    """Totals of rejected rows, without currency and amount.

    Their window is that of the event time if known, else of Kafka's timestamp, else of 1970.
    """
    epoch = pa.scalar(0, pa.int64()).cast(TIMESTAMP)
    time = pc.coalesce(rows.column("event_time"), rows.column("kafka_timestamp"), epoch)
    return _totals(
        REJECTED, time, fingerprints, pa.nulls(len(rows), NUMERIC), pa.nulls(len(rows), pa.string())
    )


def add_up(totals: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """One row per window, outcome and currency.

    Amounts add exactly: each is below 10^20 (json_values.AMOUNT_LIMIT).
    """
    table = pa.Table.from_batches(list(totals), schema=TOTALS_SCHEMA)
    table = table.set_column(5, "checksum", table.column("checksum").cast(pa.uint64()))
    grouped = table.group_by(_KEYS, use_threads=False).aggregate(_SUMS)
    return _as_totals(grouped)


def as_unobserved(totals: pa.RecordBatch) -> pa.RecordBatch:
    """A mark for each window of `totals`: a row that adds nothing."""
    marks = [
        {"window_start": start, "outcome": UNOBSERVED, "records": 0, "checksum": 0}
        for start in sorted(set(totals.column("window_start").to_pylist()))
    ]
    return pa.RecordBatch.from_pylist(marks, schema=TOTALS_SCHEMA)


def _totals(
    table: str, time: pa.Array, fingerprints: Fingerprints, amount: pa.Array, currency: pa.Array
) -> pa.RecordBatch:
    micros = time.cast(TIMESTAMP).view(pa.int64()).to_numpy(zero_copy_only=False)
    high, _ = split_fingerprints(fingerprints)
    rows = pa.table(
        {
            "window_start": pa.array(micros // BUCKET_US * BUCKET_US).cast(TIMESTAMP),
            "outcome": pa.repeat(OUTCOME_OF_TABLE[table], len(micros)),
            "currency": currency,
            "records": pa.array(np.ones(len(micros), dtype=np.int64)),
            "amount": amount,
            "checksum": pa.array(high >> np.uint64(4)),
        }
    )
    return _as_totals(rows.group_by(_KEYS, use_threads=False).aggregate(_SUMS))


def _as_totals(grouped: pa.Table) -> pa.RecordBatch:
    checksum = pc.bit_wise_and(
        grouped.column("checksum_sum"), pa.scalar(CHECKSUM_MASK, pa.uint64())
    )
    columns = [
        grouped.column("window_start"),
        grouped.column("outcome"),
        grouped.column("currency"),
        grouped.column("records_sum").cast(pa.int64()),
        grouped.column("amount_sum").cast(NUMERIC),
        checksum.cast(pa.int64()),
    ]
    return (
        pa.Table.from_arrays(columns, schema=TOTALS_SCHEMA).combine_chunks().to_batches()[0]
        if len(grouped)
        else _EMPTY
    )


_EMPTY: Final = pa.RecordBatch.from_pylist([], schema=TOTALS_SCHEMA)
