"""Small batches of decoded payments for tests of the steps behind the decoder."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa

from transforms.deduplicate.outcome import RowShape
from transforms.model.elements import DecodedBlock
from transforms.model.tables import KAFKA_COLUMNS, NUMERIC, REJECTED_SCHEMA, TIMESTAMP

MINUTE = 60_000_000
SHAPE = RowShape(ingest_time_us=5, amount_column="amount", currency_column="currency")

_COLUMNS = pa.schema(
    [
        pa.field("transaction_id", pa.string(), nullable=False),
        pa.field("event_time", TIMESTAMP, nullable=False),
        pa.field("amount", NUMERIC, nullable=False),
        pa.field("currency", pa.string(), nullable=False),
        pa.field("unknown_fields", pa.string()),
        *[field for field in KAFKA_COLUMNS if field.name != "ingest_time"],
    ]
)
_REJECTED_COLUMNS = pa.schema([field for field in REJECTED_SCHEMA if field.name != "ingest_time"])


@dataclass(frozen=True)
class Payment:
    id: str
    event_time: int
    offset: int
    partition: int = 0
    topic: str = "payments"
    amount: str = "1.50"
    currency: str = "EUR"


def decoded(payments, rejected=()):
    """A DecodedBlock of these payments; `rejected` are (transaction_id or None, event time or None,
    offset).
    """
    rows = [
        {
            "transaction_id": payment.id,
            "event_time": payment.event_time,
            "amount": Decimal(payment.amount),
            "currency": payment.currency,
            "unknown_fields": None,
            "kafka_topic": payment.topic,
            "kafka_partition": payment.partition,
            "kafka_offset": payment.offset,
            "kafka_timestamp": payment.event_time,
        }
        for payment in payments
    ]
    bad = [
        {
            "reason": "wrong_type",
            "detail": "amount",
            "payload": b"{}",
            "transaction_id": key,
            "event_time": time,
            "kafka_topic": "payments",
            "kafka_partition": 0,
            "kafka_offset": offset,
            "kafka_timestamp": 7,
        }
        for key, time, offset in rejected
    ]
    return DecodedBlock(
        pa.RecordBatch.from_pylist(rows, schema=_COLUMNS),
        np.arange(len(rows)),
        pa.RecordBatch.from_pylist(bad, schema=_REJECTED_COLUMNS),
    )


def verdicts_by_offset(outcomes):
    """(partition, offset) -> table, over all outcomes; fails when a coordinate comes twice."""
    found = {}
    for outcome in outcomes:
        for table, rows in outcome.tables.items():
            for partition, offset in zip(
                rows.column("kafka_partition").to_pylist(),
                rows.column("kafka_offset").to_pylist(),
                strict=True,
            ):
                assert (partition, offset) not in found
                found[partition, offset] = table
    return found
