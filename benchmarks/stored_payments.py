"""Payments by the million in a DuckDB file, written by SQL as one run would have left them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import duckdb
import numpy as np

from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.sql.totals import totals_of_rows
from transforms.model.coordinates import coordinate_sum
from transforms.model.fingerprints import FINGERPRINT_BYTES
from transforms.model.tables import PAYMENTS, RUNS, TOTALS


def add_payments(path: Path, ids: int, span_us: int) -> None:
    """Makes `ids` payments of the only one in the file, and has its run count them all.

    They are copies of it with the ids id_of(1) ... id_of(ids - 1) and the offsets 1 ... ids - 1,
    each span_us / ids microseconds earlier than the one before; the run must have read offset 0 of
    one partition. Ledger and control totals then say what the tables hold, so that `check` passes.
    """
    # Beside a Flink cluster and a broker, 80 % of the memory is too much.
    with duckdb.connect(str(path), config={"memory_limit": "2GB"}) as connection:
        connection.execute("SET preserve_insertion_order = false")
        connection.execute(
            f"INSERT INTO {PAYMENTS} BY NAME SELECT p.* REPLACE ("
            " md5(i::VARCHAR) AS transaction_id,"
            " p.event_time - to_microseconds(i * $span // $ids) AS event_time,"
            " i AS kafka_offset)"
            f" FROM {PAYMENTS} AS p, range(1, $ids) AS r(i)",
            {"ids": ids, "span": span_us},
        )
        ((topic, partition),) = connection.execute(
            f"SELECT DISTINCT kafka_topic, kafka_partition FROM {PAYMENTS}"
        ).fetchall()
        connection.execute(
            _COUNTED,
            {
                "ids": ids,
                "hash": coordinate_sum(topic, partition, np.arange(ids, dtype=np.int64)),
                "bytes": ids * FINGERPRINT_BYTES,
            },
        )
        connection.execute(f"DELETE FROM {TOTALS}")
        totals = totals_of_rows(DUCKDB, lambda table: f"{table} AS r", "amount", "currency")
        connection.execute(f"INSERT INTO {TOTALS} BY NAME {totals}")


def id_of(number: int) -> str:
    """The transaction_id of the payment with this number, from 1 on."""
    return hashlib.md5(str(number).encode()).hexdigest()


def event_time_of(number: int, ids: int, first_us: int, span_us: int) -> int:
    """Its event time in microseconds. first_us: that of the payment that was there."""
    return first_us - number * span_us // ids


_COUNTED = f"""
UPDATE {RUNS} SET live_ids = $ids, state_bytes = $bytes,
    partitions = [{{
        'topic': p.topic, 'partition': p."partition", 'topic_id': p.topic_id,
        'from_offset': 0, 'to_offset': $ids, 'records': $ids, 'gap_offsets': 0,
        'coordinate_hash': $hash::UBIGINT, 'start_watermark': p.start_watermark,
        'watermark': p.watermark, 'position_since': p.position_since
    }} FOR p IN partitions],
    tables = [{{
        'table': t."table",
        'rows': CASE t."table" WHEN '{PAYMENTS}' THEN $ids ELSE t.rows END,
        'commit_groups': t.commit_groups
    }} FOR t IN tables]
WHERE successor IS NULL
"""
