"""Kafka for tests of streaming: lists of records per partition, and a source with its watermark.
Times in microseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import groupby

import numpy as np
import pyarrow as pa

from pipeline.options.schema_file import load_schema
from tests.support.payments import MINUTE
from transforms.model.elements import Covered, DecodedBlock, EmptyOffsets
from transforms.model.rejected import LATE, rejected_rows
from transforms.model.tables import REJECTED_SCHEMA, payment_columns

TOPIC = "payments"
TOPIC_ID = "id of the topic"
HORIZON = 5 * MINUTE
SCHEMA = load_schema(None)
_PAYMENTS = pa.schema(
    [field for field in payment_columns(SCHEMA.arrow_fields()) if field.name != "ingest_time"]
)
_REJECTED = pa.schema([field for field in REJECTED_SCHEMA if field.name != "ingest_time"])


@dataclass(frozen=True)
class Sent:
    """key: transaction_id, None for a record that cannot be decoded. gap: the offset holds no
    record, or does not any more.
    """

    key: str | None
    time: int
    gap: bool = False


@dataclass
class Source:
    """The position and watermark of every partition. watermark: None before the first record that
    was on time.
    """

    log: list[list[Sent]]
    positions: dict[int, int] = field(default_factory=dict)
    watermarks: dict[int, int | None] = field(default_factory=dict)
    topic_id: str = TOPIC_ID

    def copy(self) -> Source:
        return Source(self.log, dict(self.positions), dict(self.watermarks), self.topic_id)

    def left(self, partition: int) -> int:
        return len(self.log[partition]) - self.positions.get(partition, 0)

    def read(self, partition: int, records: int) -> Iterator[tuple[DecodedBlock, Covered]]:
        """The next offsets as one read: its records, judged by the watermark before it, and its
        gaps; nothing at the end of the log.
        """
        start = self.positions.get(partition, 0)
        chunk = list(enumerate(self.log[partition][start : start + records], start))
        if not chunk:
            return
        last = self.positions[partition] = start + len(chunk)
        runs = [
            [offset for offset, _ in run]
            for is_gap, run in groupby(chunk, key=lambda entry: entry[1].gap)
            if is_gap
        ]
        gaps = [EmptyOffsets(run[0], run[-1], "no_record") for run in runs]
        block = self._judge(partition, [entry for entry in chunk if not entry[1].gap])
        yield block, Covered(TOPIC, self.topic_id, partition, start, last - 1, gaps)

    def _judge(self, partition: int, entries: list[tuple[int, Sent]]) -> DecodedBlock:
        good = [(offset, sent) for offset, sent in entries if sent.key is not None]
        bad = [_bad_row(partition, offset, sent) for offset, sent in entries if sent.key is None]
        watermark = self.watermarks.get(partition)
        late = [
            (offset, sent)
            for offset, sent in good
            if watermark is not None and sent.time < watermark
        ]
        good = [
            (offset, sent) for offset, sent in good if watermark is None or sent.time >= watermark
        ]
        marks = [sent.time - HORIZON for _, sent in good] + [
            mark for mark in [watermark] if mark is not None
        ]
        self.watermarks[partition] = max(marks, default=None)
        moved = rejected_rows(
            _payments(partition, late),
            [LATE] * len(late),
            ["late"] * len(late),
            [b"{}"] * len(late),
        )
        rejected = pa.concat_batches([pa.RecordBatch.from_pylist(bad, schema=_REJECTED), moved])
        return DecodedBlock(_payments(partition, good), np.arange(len(good)), rejected)

    def idle(self, partition: int, watermark: int) -> None:
        """The partition follows the clock."""
        before = self.watermarks.get(partition)
        self.watermarks[partition] = watermark if before is None else max(before, watermark)

    def minimum(self) -> int | None:
        """The watermark of the step behind the source; None while a partition has none."""
        marks = [self.watermarks.get(partition) for partition in range(len(self.log))]
        return None if None in marks else min(mark for mark in marks if mark is not None)


def never_late(log: list[list[Sent]], partition: int) -> list[bool]:
    """Per record of a partition, whether it is on time however the partition is cut into blocks."""
    highest, verdicts = None, []
    for sent in log[partition]:
        verdicts.append(
            sent.key is not None and (highest is None or sent.time >= highest - HORIZON)
        )
        if sent.key is not None:
            highest = sent.time if highest is None else max(highest, sent.time)
    return verdicts


def _payments(partition: int, records: list[tuple[int, Sent]]) -> pa.RecordBatch:
    rows = [
        {
            "transaction_id": sent.key,
            "event_time": sent.time,
            "payer_id": "payer",
            "payee_id": "payee",
            "amount": Decimal(offset + 1),
            "currency": "EUR" if offset % 2 else "USD",
            "status": "ok",
            "payment_method": None,
            "unknown_fields": None,
            "kafka_topic": TOPIC,
            "kafka_partition": partition,
            "kafka_offset": offset,
            "kafka_timestamp": sent.time,
        }
        for offset, sent in records
    ]
    return pa.RecordBatch.from_pylist(rows, schema=_PAYMENTS)


def _bad_row(partition: int, offset: int, sent: Sent) -> dict[str, object]:
    return {
        "reason": "invalid_json",
        "detail": "broken",
        "payload": b"{",
        "transaction_id": None,
        "event_time": None,
        "kafka_topic": TOPIC,
        "kafka_partition": partition,
        "kafka_offset": offset,
        "kafka_timestamp": sent.time,
    }
