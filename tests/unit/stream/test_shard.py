"""One shard without a destination: what it decides from its state and from what is present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from tests.support.payments import MINUTE, SHAPE, Payment, decoded
from tests.support.streaming.runner import DictCells, state_settings
from transforms.destinations.contract.present_rows import PRESENT_SCHEMA
from transforms.destinations.contract.shard_ledger import Progress
from transforms.model.elements import Covered, ShardBatch, StreamBatch
from transforms.model.fingerprints import batch_fingerprints, split_by_shard
from transforms.model.partitions import by_partition
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED, ROW_TABLES
from transforms.stream.present_rows import PresentRows
from transforms.stream.present_totals import PresentTotals
from transforms.stream.recover import Recovered
from transforms.stream.shard import OpenShard


class Written:
    """Stands for the appends of a bundle."""

    def __init__(self) -> None:
        self.tables: list[tuple[str, int]] = []

    def __call__(self, _head: Any) -> Any:
        return self

    def add(self, tables: dict[str, pa.RecordBatch]) -> None:
        self.tables += [
            (table, offset)
            for table, rows in tables.items()
            for offset in rows.column("kafka_offset").to_pylist()
        ]

    def settle(self) -> dict[str, int]:
        return dict.fromkeys(ROW_TABLES, 9)


class NoTotals:
    def present_totals(
        self, ranges: Sequence[tuple[str, int, int, int]], amount: str | None, currency: str | None
    ) -> pa.RecordBatch:
        raise AssertionError(f"asked for {ranges}")


def present(*rows: tuple[str, Payment]) -> PresentRows:
    entries = []
    for table, payment in rows:
        ((_, batch),) = split_by_shard(decoded([payment]), 1)
        entries.append(
            {
                "shard": 0,
                "table_name": table,
                "kafka_topic": payment.topic,
                "kafka_partition": payment.partition,
                "kafka_offset": payment.offset,
                "fingerprint": batch_fingerprints(batch.payments)[0].tobytes(),
                "event_time_us": payment.event_time,
            }
        )
    return PresentRows(pa.Table.from_pylist(entries, schema=PRESENT_SCHEMA))


def recovered(found: PresentRows, cells: DictCells | None = None) -> OpenShard:
    shard = OpenShard(0, state_settings(1), cells or DictCells())
    progress = Progress(1, "n", {}, dict.fromkeys(ROW_TABLES, 0), found.left({}), {})
    shard.take_over(Recovered(0, progress, {table: table for table in ROW_TABLES}, found))
    return shard


def verdicts(shard: OpenShard, *payments: Payment) -> list[tuple[str, int]]:
    written: Any = shard._appends or Written()
    before = len(written.tables)
    ((_, batch),) = split_by_shard(decoded(payments), 1)
    shard.process(stream_batch(batch), written, PresentTotals(SHAPE, NoTotals()))
    return list(written.tables[before:])


def stream_batch(batch: ShardBatch) -> StreamBatch:
    """With the ranges from the first to the last offset of each partition."""
    offsets = batch.payments.column("kafka_offset").to_numpy()
    covered = [
        Covered(topic, None, partition, int(offsets[mine].min()), int(offsets[mine].max()))
        for topic, partition, mine in by_partition(batch.payments)
    ]
    return StreamBatch(batch.payments, batch.rejected, covered)


def test_a_present_payment_makes_its_id_known_before_the_first_verdict() -> None:
    shard = recovered(present((PAYMENTS, Payment("a", 0, 5))))
    assert verdicts(shard, Payment("a", 0, 3, partition=1)) == [(DUPLICATES, 3)]


def test_a_present_duplicate_or_rejected_record_alone_makes_no_id_known() -> None:
    shard = recovered(present((DUPLICATES, Payment("a", 0, 5)), (REJECTED, Payment("b", 0, 6))))
    assert verdicts(shard, Payment("a", 0, 3, partition=1), Payment("b", 0, 4, partition=1)) == [
        (PAYMENTS, 3),
        (PAYMENTS, 4),
    ]


def test_a_present_duplicate_keeps_its_id_for_as_long_as_its_event_time_says() -> None:
    late_copy = present((PAYMENTS, Payment("a", 0, 5)), (DUPLICATES, Payment("a", 3 * MINUTE, 6)))
    shard = recovered(late_copy)
    shard.expire(2 * MINUTE)
    assert verdicts(shard, Payment("a", 3 * MINUTE, 3, partition=1)) == [(DUPLICATES, 3)]
    shard.expire(4 * MINUTE)
    assert verdicts(shard, Payment("a", 5 * MINUTE, 4, partition=1)) == [(PAYMENTS, 4)]


def test_present_records_are_not_written_again_and_the_state_counts_what_is_left() -> None:
    cells = DictCells()
    shard = recovered(
        present(
            (PAYMENTS, Payment("a", 0, 5)),
            (DUPLICATES, Payment("a", 0, 7)),
            (PAYMENTS, Payment("b", 0, 8)),
        ),
        cells,
    )
    assert verdicts(shard, Payment("a", 0, 5), Payment("c", 0, 6), Payment("a", 0, 7)) == [
        (PAYMENTS, 6)
    ]
    shard.finish()
    progress = OpenShard(0, state_settings(1), cells).start().progress
    assert progress is not None
    assert (progress.offsets, progress.present) == (
        {"payments": {0: 7}},
        {PAYMENTS: 1, DUPLICATES: 0, REJECTED: 0},
    )


def test_the_live_ids_of_the_state_are_those_of_the_tables_and_the_bundle() -> None:
    cells = DictCells()
    shard = recovered(
        present((PAYMENTS, Payment("a", 0, 5)), (DUPLICATES, Payment("a", MINUTE, 6))), cells
    )
    verdicts(shard, Payment("b", 2 * MINUTE, 7, partition=1), Payment("a", 0, 8, partition=1))
    assert shard.next_expiry() == 2 * MINUTE
    shard.finish()
    again = OpenShard(0, state_settings(1), cells)
    nothing = present()
    again.take_over(
        Recovered(
            0,
            Progress(2, "m", {"payments": {0: 8}}, {}, {}, {}),
            {table: table for table in ROW_TABLES},
            nothing,
        )
    )
    assert verdicts(again, Payment("a", 0, 9), Payment("b", 0, 10), Payment("c", 0, 11)) == [
        (PAYMENTS, 11),
        (DUPLICATES, 9),
        (DUPLICATES, 10),
    ]


def test_what_a_shard_may_have_forgotten_is_rejected_as_late_and_counted() -> None:
    shard = recovered(present())
    shard.expire(5 * MINUTE)
    assert verdicts(shard, Payment("a", 0, 1), Payment("a", 5 * MINUTE, 2)) == [
        (PAYMENTS, 2),
        (REJECTED, 1),
    ]
    assert shard.late_behind_expiry == 1
