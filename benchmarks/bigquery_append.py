"""How fast rows leave for BigQuery: Arrow batches in, acknowledged rows out, against a stand-in
that counts rows and throws them away.

python -m benchmarks.bigquery_append [rows]: the client in this process, the stand-in in another
one. It says what the append path costs on this side of the network, and nothing about the service.
Everything it prints comes from one run of it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.discarding_stand_in import DATASET, PROJECT, discarding_stand_in
from pipeline.options.schema_file import load_schema
from transforms.destinations.appends import APPEND_BYTES, FailBundle, TableAppends
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.rows import serialize_rows
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.model.tables import NUMERIC, PAYMENTS, TIMESTAMP

BATCH_ROWS = 5_000
"""What one shard gets of one source batch, about."""


def main(rows: int) -> None:
    batch = payments(BATCH_ROWS)
    batches = rows // BATCH_ROWS
    rows = batches * BATCH_ROWS
    with tempfile.TemporaryDirectory() as folder, discarding_stand_in(Path(folder)) as ready:
        settings = BigQuerySettings(
            PROJECT,
            DATASET,
            api_endpoint=ready["rest_endpoint"],
            storage_endpoint=ready["storage_endpoint"],
        )
        with BigQueryDestination(settings) as destination:
            destination.tables.create(load_schema(None))
            append(destination, batch, 1)  # connections and imports
            begun, cpu = time.perf_counter(), time.process_time()
            append(destination, batch, batches)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    serialization = serialize(batch, batches)
    size = batch.nbytes * batches
    print(
        f"{rows:,} rows of {batch.nbytes / BATCH_ROWS:.0f} bytes, appends of {APPEND_BYTES >> 20}"
        f" MB, {os.cpu_count()} cores"
    )
    print(
        f"acknowledged           {rows / seconds:>12,.0f} rows/s   {size / seconds / 1e6:,.0f} MB/s"
    )
    print(
        f"per CPU second         {rows / cpu:>12,.0f} rows/s   {cpu / rows * 1e6:.2f}"
        " microseconds/row, all threads of this process"
    )
    print(f"serialization's share  {serialization / cpu:>12.0%} of that CPU")


def append(destination: BigQueryDestination, batch: pa.RecordBatch, times: int) -> None:
    """As one shard of a run does: collected to appends, several in flight, all acknowledged at the
    end.
    """
    appends = TableAppends(destination.streams, PAYMENTS, FailBundle())
    for _ in range(times):
        appends.add(batch)
    written = appends.written()
    assert written is not None and written.rows == times * batch.num_rows


def serialize(batch: pa.RecordBatch, times: int) -> float:
    """CPU seconds of turning the same rows into messages, and nothing else."""
    per_append = max(1, APPEND_BYTES // batch.nbytes + 1)
    merged = pa.concat_batches([batch] * per_append)
    begun = time.process_time()
    for _ in range(times // per_append):
        serialize_rows(merged)
    return time.process_time() - begun


def payments(rows: int) -> pa.RecordBatch:
    """About 250 bytes a row, with the columns of `payment_transactions`."""
    numbers = range(rows)
    text = {
        "transaction_id": [
            f"0000002a-{number:012d}-{number * 7919 % (1 << 40):010x}" for number in numbers
        ],
        "currency": ["EUR"] * rows,
        "payer_id": [f"payer-{number:016d}" for number in numbers],
        "payee_id": [f"payee-{number % 9973:016d}" for number in numbers],
        "status": ["AUTHORIZED"] * rows,
        "payment_method": ["DIRECT_DEBIT"] * rows,
        "kafka_topic": ["payments"] * rows,
    }
    times = pa.array(
        [1_790_000_000_000_000 + number * 1000 for number in numbers], pa.int64()
    ).cast(TIMESTAMP)
    columns: dict[str, Any] = {
        **{name: pa.array(values, pa.string()) for name, values in text.items()},
        "unknown_fields": pa.array(
            ['{"channel":"web","terminal":"000000017"}'] * rows, pa.string()
        ),
        "event_time": times,
        "amount": pa.array([number * 101 for number in numbers], pa.int64()).cast(NUMERIC),
        "kafka_partition": pa.array([3] * rows, pa.int32()),
        "kafka_offset": pa.array(numbers, pa.int64()),
        "kafka_timestamp": times,
        "ingest_time": times,
    }
    return pa.RecordBatch.from_pydict(columns)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3_000_000)
