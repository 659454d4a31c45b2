import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.payments import SHAPE, Payment, decoded
from tests.unit.contract_shard_ledger import ShardLedgerContract, claimed
from transforms.destinations.duckdb import DuckDBDestination
from transforms.outcome import outcome_of
from transforms.present_rows import ShardFloor
from transforms.schema import load_schema
from transforms.shard import batch_fingerprints, split_by_shard
from transforms.tables import GAPS, GAPS_SCHEMA, PAYMENTS, REJECTED
from transforms.write_streams import COMMITTED_STREAM

SHARDS = 4


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[DuckDBDestination]:
    with DuckDBDestination(str(tmp_path / "test.duckdb")) as one:
        one.create_tables(load_schema(None).arrow_fields())
        yield one


class TestDuckDBShardLedger(ShardLedgerContract):
    @pytest.fixture
    def destination(self, tmp_path: Path) -> Iterator[DuckDBDestination]:
        with DuckDBDestination(str(tmp_path / "ledger.duckdb")) as one:
            one.create_tables(load_schema(None).arrow_fields())
            yield one


def test_of_many_threads_that_claim_one_shard_at_once_exactly_one_succeeds(destination: DuckDBDestination) -> None:
    destination.create_shard_ledger(2)
    job = destination.begin_job("job", 0)
    seen = destination.read_shards([0, 1])
    ready, won = threading.Barrier(6), []

    def claim(number: int) -> None:
        ready.wait()
        if destination.swap_shards(job, seen, [claimed(row, str(number)) for row in seen]):
            won.append(str(number))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.nonce for row in destination.read_shards([0, 1])] == won * 2


def append(destination: DuckDBDestination, table: str, rows: pa.RecordBatch) -> None:
    destination.send(destination.create_stream(table, COMMITTED_STREAM), 0, rows).wait()


def fill(destination: DuckDBDestination) -> dict[int, Any]:
    """Payments and rejected records without an id, by shard as the pipeline splits them."""
    block = decoded([Payment(f"id {number}", number, number) for number in range(40)], [(None, None, offset) for offset in range(40, 60)])
    parts = dict(split_by_shard(block, SHARDS))
    for shard, batch in parts.items():
        everything = np.ones(batch.payments.num_rows, dtype=bool)
        for table, rows in outcome_of(shard, batch, everything, {}, SHAPE).tables.items():
            append(destination, table, rows)
    return parts


def test_sql_says_of_every_row_the_shard_and_fingerprint_that_the_pipeline_says(destination: DuckDBDestination) -> None:
    parts = fill(destination)
    found = destination.rows_above(SHARDS, [ShardFloor(shard, {}) for shard in range(SHARDS)], None)
    said = {(row["kafka_offset"]): (row["shard"], row["fingerprint"], row["table_name"]) for row in found.to_pylist()}
    expected = {}
    for shard, batch in parts.items():
        for table, rows in ((PAYMENTS, batch.payments), (REJECTED, batch.rejected)):
            for offset, fingerprint in zip(rows.column("kafka_offset").to_pylist(), batch_fingerprints(rows), strict=True):
                expected[offset] = (shard, fingerprint.tobytes(), table)
    assert said == expected
    counts = destination.count_above(SHARDS, [ShardFloor(0, {})])
    assert counts == {(0, PAYMENTS): parts[0].payments.num_rows, (0, REJECTED): parts[0].rejected.num_rows}


def test_each_shard_is_asked_above_its_own_offsets_and_from_the_beginning_where_it_has_none(destination: DuckDBDestination) -> None:
    parts = fill(destination)
    floors = [ShardFloor(0, {"payments": {0: 30}}), ShardFloor(1, {}), ShardFloor(2, {"payments": {0: 100}})]
    found = destination.rows_above(SHARDS, floors, None).to_pylist()
    both = {
        shard: [*parts[shard].payments.column("kafka_offset").to_pylist(), *parts[shard].rejected.column("kafka_offset").to_pylist()]
        for shard in parts
    }
    assert sorted(row["kafka_offset"] for row in found if row["shard"] == 0) == [offset for offset in sorted(both[0]) if offset > 30]
    assert sorted(row["kafka_offset"] for row in found if row["shard"] == 1) == sorted(both[1])
    assert {row["shard"] for row in found} == {0, 1}
    bounded = destination.rows_above(SHARDS, floors, 35).to_pylist()
    assert all(row["event_time_us"] is None or row["event_time_us"] >= 35 for row in bounded)


def gap(partition: int, first: int, last: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [{"kafka_topic": "payments", "kafka_partition": partition, "first_offset": first, "last_offset": last, "cause": "no_record"}],
        schema=GAPS_SCHEMA,
    )


def test_the_first_missing_offset_lies_behind_rows_and_gaps_and_never_before_its_begin(destination: DuckDBDestination) -> None:
    fill(destination)
    for one in (gap(0, 60, 64), gap(0, 66, 70), gap(1, 0, 9)):
        append(destination, GAPS, one)
    begins = {("payments", 0): 0, ("payments", 1): 5, ("payments", 2): 7, ("other", 0): 0}
    assert destination.first_missing(begins) == {("payments", 0): 65, ("payments", 1): 10, ("payments", 2): 7, ("other", 0): 0}
    assert destination.first_missing({("payments", 0): 68}) == {("payments", 0): 71}
    assert destination.highest_event_times({("payments", 0): 12, ("payments", 1): 9}) == {("payments", 0): 11}
