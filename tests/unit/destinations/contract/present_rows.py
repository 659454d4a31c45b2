"""What recovery and adopt ask of the tables, as tests.

A destination passes them by giving `PresentRowsContract` its fixture `destination`, open and with
its tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from tests.support.payments import MINUTE, SHAPE, Payment, decoded
from transforms.deduplicate.outcome import outcome_of
from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.write_streams import COMMITTED_STREAM
from transforms.model.fingerprints import batch_fingerprints, split_by_shard
from transforms.model.tables import (
    GAPS,
    GAPS_SCHEMA,
    PAYMENTS,
    REJECTED,
    TOTALS,
    TOTALS_TABLE_SCHEMA,
)

SHARDS = 4


def append(destination: Any, table: str, rows: pa.RecordBatch) -> None:
    destination.streams.send(destination.streams.create(table, COMMITTED_STREAM), 0, rows).wait()


def fill(destination: Any) -> dict[int, Any]:
    """Payments and rejected records without an id, by shard as the pipeline splits them."""
    block = decoded(
        [Payment(f"id {number}", number, number) for number in range(40)],
        [(None, None, offset) for offset in range(40, 60)],
    )
    parts = dict(split_by_shard(block, SHARDS))
    for shard, batch in parts.items():
        everything = np.ones(batch.payments.num_rows, dtype=bool)
        for table, rows in outcome_of(shard, batch, everything, {}, SHAPE).tables.items():
            append(destination, table, rows)
    return parts


def gap(partition: int, first: int, last: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [
            {
                "kafka_topic": "payments",
                "kafka_partition": partition,
                "first_offset": first,
                "last_offset": last,
                "cause": "no_record",
            }
        ],
        schema=GAPS_SCHEMA,
    )


class PresentRowsContract:
    def test_sql_says_of_every_row_the_shard_and_fingerprint_that_the_pipeline_says(
        self, destination: Any
    ) -> None:
        parts = fill(destination)
        found = destination.rows.rows_above(
            SHARDS, [ShardOffsets(shard, {}) for shard in range(SHARDS)], None
        )
        said = {
            (row["kafka_offset"]): (row["shard"], row["fingerprint"], row["table_name"])
            for row in found.to_pylist()
        }
        expected = {}
        for shard, batch in parts.items():
            for table, rows in ((PAYMENTS, batch.payments), (REJECTED, batch.rejected)):
                for offset, fingerprint in zip(
                    rows.column("kafka_offset").to_pylist(), batch_fingerprints(rows), strict=True
                ):
                    expected[offset] = (shard, fingerprint.tobytes(), table)
        assert said == expected
        counts = destination.rows.count_above(SHARDS, [ShardOffsets(0, {})])
        assert counts == {
            (0, PAYMENTS): parts[0].payments.num_rows,
            (0, REJECTED): parts[0].rejected.num_rows,
        }

    def test_each_shard_is_asked_above_its_own_offsets_and_from_the_beginning_where_it_has_none(
        self, destination: Any
    ) -> None:
        parts = fill(destination)
        shard_offsets = [
            ShardOffsets(0, {"payments": {0: 30}}),
            ShardOffsets(1, {}),
            ShardOffsets(2, {"payments": {0: 100}}),
        ]
        found = destination.rows.rows_above(SHARDS, shard_offsets, None).to_pylist()
        both = {
            shard: [
                *parts[shard].payments.column("kafka_offset").to_pylist(),
                *parts[shard].rejected.column("kafka_offset").to_pylist(),
            ]
            for shard in parts
        }
        assert sorted(row["kafka_offset"] for row in found if row["shard"] == 0) == [
            offset for offset in sorted(both[0]) if offset > 30
        ]
        assert sorted(row["kafka_offset"] for row in found if row["shard"] == 1) == sorted(both[1])
        assert {row["shard"] for row in found} == {0, 1}
        bounded = destination.rows.rows_above(SHARDS, shard_offsets, 35).to_pylist()
        assert all(row["event_time_us"] is None or row["event_time_us"] >= 35 for row in bounded)

    def test_the_first_missing_offset_lies_behind_rows_and_gaps_and_never_before_its_begin(
        self, destination: Any
    ) -> None:
        fill(destination)
        for batch in (gap(0, 60, 64), gap(0, 66, 70), gap(1, 0, 9)):
            append(destination, GAPS, batch)
        begins = {("payments", 0): 0, ("payments", 1): 5, ("payments", 2): 7, ("other", 0): 0}
        assert destination.rows.first_missing(begins) == {
            ("payments", 0): 65,
            ("payments", 1): 10,
            ("payments", 2): 7,
            ("other", 0): 0,
        }
        assert destination.rows.first_missing({("payments", 0): 68}) == {("payments", 0): 71}
        assert destination.rows.highest_event_times({("payments", 0): 12, ("payments", 1): 9}) == {
            ("payments", 0): 11
        }

    def test_only_rows_that_are_there_are_counted_as_present(self, destination: Any) -> None:
        rows = self.one_block(destination)
        assert (
            destination.rows.count_present(PAYMENTS, rows[PAYMENTS]) == rows[PAYMENTS].num_rows - 2
        )
        assert destination.rows.count_present(REJECTED, rows[PAYMENTS]) == 0
        append(destination, GAPS, gap(0, 60, 64))
        assert [
            destination.rows.count_present(GAPS, gap(*offsets))
            for offsets in ((0, 60, 64), (0, 61, 64), (1, 60, 64))
        ] == [1, 0, 0]

    def one_block(self, destination: Any) -> dict[str, pa.RecordBatch]:
        """Rows of one shard, of which all payments but the last two are written."""
        ((_, batch),) = split_by_shard(
            decoded([Payment(f"id {number}", number, number) for number in range(6)]), 1
        )
        tables = outcome_of(0, batch, np.ones(6, dtype=bool), {}, SHAPE).tables
        append(destination, PAYMENTS, tables[PAYMENTS].slice(0, 4))
        return tables

    def test_totals_are_found_by_the_append_that_wrote_them_and_those_of_bounded_runs_never(
        self, destination: Any
    ) -> None:
        def totals(epoch: int | None, *stream_offsets: int | None) -> pa.RecordBatch:
            rows = [
                {
                    "window_start": 0,
                    "outcome": "rejected",
                    "records": 1,
                    "checksum": 5,
                    "stream_epoch": epoch,
                    "stream_offset": offset,
                }
                for offset in stream_offsets
            ]
            return pa.RecordBatch.from_pylist(rows, schema=TOTALS_TABLE_SCHEMA)

        for batch in (totals(None, None), totals(1, 0, 1), totals(2, 0)):
            append(destination, TOTALS, batch)
        found = destination.rows.totals_since(1, 1)
        assert found.schema == TOTALS_TABLE_SCHEMA
        assert sorted((row["stream_epoch"], row["stream_offset"]) for row in found.to_pylist()) == [
            (1, 1),
            (2, 0),
        ]
        assert destination.rows.totals_since(0, 0).num_rows == 3

    def test_a_window_is_unfinished_when_its_totals_lack_rows_or_a_row_lies_above_the_positions(
        self, destination: Any
    ) -> None:
        """Offset n has the event time of minute n; offset 5 is rejected, without a time."""
        ((_, batch),) = split_by_shard(
            decoded([Payment(f"id {at}", at * MINUTE, at) for at in range(5)], [(None, None, 5)]),
            1,
        )
        outcome = outcome_of(0, batch, np.ones(5, dtype=bool), {}, SHAPE)
        for table, rows in outcome.tables.items():
            append(destination, table, rows)

        def unfinished(*positions: int) -> list[str]:
            bounds = {("payments", at): offset for at, offset in enumerate(positions)}
            found: list[str] = destination.rows.unfinished_windows(bounds)
            return [window[11:16] for window in found]

        everything = [f"00:0{minute}" for minute in range(5)]
        assert unfinished(9) == everything, "no totals yet"
        append(destination, TOTALS, outcome.totals)
        assert unfinished(9) == unfinished() == []
        assert (unfinished(3), unfinished(9, 0)) == (["00:00", "00:03", "00:04"], [])
        append(destination, TOTALS, outcome.totals.slice(1, 1))
        assert unfinished(9) == [], "more than there is: rows are missing, which check must say"

    def test_gaps_are_asked_for_above_the_offsets_of_each_partition(self, destination: Any) -> None:
        for batch in (gap(0, 3, 4), gap(0, 7, 9), gap(1, 0, 0)):
            append(destination, GAPS, batch)
        found = destination.rows.gaps_above({"payments": {0: 4}}).to_pylist()
        assert sorted(
            (row["kafka_partition"], row["first_offset"], row["last_offset"]) for row in found
        ) == [(0, 7, 9), (1, 0, 0)]
        assert destination.rows.gaps_above({}).num_rows == 3
