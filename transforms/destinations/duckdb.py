"""The embedded destination: one DuckDB file behind the write-stream contract, no stronger than that contract."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations import duckdb_ledger, duckdb_present_rows, duckdb_shard_ledger, duckdb_streams
from transforms.destinations.duckdb_live_ids import LIVE_IDS, live_ids_parameters
from transforms.destinations.duckdb_session import acquire, release
from transforms.destinations.duckdb_tables import REPORTS, create_tables, has_tables
from transforms.destinations.duckdb_totals import totals_of_rows
from transforms.present_rows import ShardFloor
from transforms.run_record import RunRecord
from transforms.shard_ledger import Job, Offsets, ShardRow
from transforms.tables import GAPS, ROW_TABLES, TOTALS, TOTALS_SCHEMA
from transforms.write_streams import PENDING_STREAM, Acknowledged

_T = TypeVar("_T")


class DuckDBDestination:
    """Picklable: only the path travels. `with destination:` opens the file while it is needed; every other call needs it open."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._local = threading.local()
        self._connections: list[duckdb.DuckDBPyConnection] = []

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return (DuckDBDestination, (self.path,))

    def __enter__(self) -> DuckDBDestination:
        self._connections.append(acquire(self.path))
        return self

    def __exit__(self, *error: object) -> None:
        self._connections.pop()
        if not self._connections:
            self._local = threading.local()
        release(self.path)

    def create_tables(self, payment_fields: list[pa.Field]) -> None:
        """Tables and views that are missing, and new nullable columns. Raises GuaranteeError where an existing table differs."""
        create_tables(self._cursor(), payment_fields)

    def has_tables(self) -> bool:
        """False for a file that no run has written to."""
        return has_tables(self._cursor())

    def is_empty(self) -> bool:
        """No row in any of the three tables of records."""
        return not any(self._cursor().execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in ROW_TABLES)

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        return _fetch(self._cursor(), sql, parameters or {})

    # Write streams: transforms/write_streams.py is the contract.

    def create_stream(self, table: str, kind: str = PENDING_STREAM) -> str:
        return duckdb_streams.create(self._cursor(), table, kind)

    def send(self, stream: str, offset: int, rows: pa.RecordBatch) -> Acknowledged:
        encoded = duckdb_streams.EncodedRows(rows)
        return Acknowledged(self._atomically(lambda cursor: duckdb_streams.append(cursor, stream, offset, encoded)))

    def finalize_stream(self, stream: str) -> int:
        return self._atomically(lambda cursor: duckdb_streams.finalize(cursor, stream))

    def commit_streams(self, table: str, streams: list[str]) -> None:
        self._atomically(lambda cursor: duckdb_streams.commit(cursor, table, streams))

    def discard_streams(self, keep: Collection[str]) -> int:
        """Removes PENDING streams that are not committed and not in `keep`, with their rows; how many."""
        return self._atomically(lambda cursor: duckdb_streams.discard(cursor, keep))

    # The ledger.

    def read_runs(self) -> list[RunRecord]:
        """From genesis on, in the order of the chain. Raises GuaranteeError when the chain is broken."""
        return duckdb_ledger.read_runs(self._cursor())

    def claim_run(self, record: RunRecord) -> bool:
        """Follows the record's predecessor and writes the whole record, atomically. False: somebody else has followed it already."""
        try:
            return self._atomically(lambda cursor: duckdb_ledger.claim(cursor, record))
        except (duckdb.TransactionException, duckdb.ConstraintException):
            # Two claims met: DuckDB lets one through and refuses the other when it writes or commits.
            return False

    def mark_run(self, run_id: str, status: str) -> None:
        """PREPARED -> COMMITTED or ABORTED; the same status again is success."""
        self._atomically(lambda cursor: duckdb_ledger.mark(cursor, run_id, status))

    # Streaming: transforms/shard_ledger.py and transforms/present_rows.py are the contract.

    def create_shard_ledger(self, shards: int) -> None:
        self._atomically(lambda cursor: duckdb_shard_ledger.create(cursor, shards))

    def begin_job(self, job_id: str, follows: int) -> Job:
        return self._atomically(lambda cursor: duckdb_shard_ledger.begin_job(cursor, job_id, follows))

    def read_shards(self, shards: Sequence[int]) -> list[ShardRow]:
        return duckdb_shard_ledger.read(self._cursor(), shards)

    def swap_shards(self, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]) -> bool:
        try:
            return self._atomically(lambda cursor: duckdb_shard_ledger.swap(cursor, job, seen, rows))
        except duckdb.TransactionException:
            # Two changes of one row met: DuckDB lets one through and refuses the other.
            return False

    def rows_above(self, shards: int, floors: Sequence[ShardFloor], oldest_event_time_us: int | None) -> pa.Table:
        return duckdb_present_rows.rows_above(self._cursor(), shards, floors, oldest_event_time_us)

    def count_above(self, shards: int, floors: Sequence[ShardFloor]) -> dict[tuple[int, str], int]:
        return duckdb_present_rows.count_above(self._cursor(), shards, floors)

    def first_missing(self, begins: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        return duckdb_present_rows.first_missing(self._cursor(), begins)

    def highest_event_times(self, ends: Mapping[tuple[str, int], int]) -> dict[tuple[str, int], int]:
        return duckdb_present_rows.highest_event_times(self._cursor(), ends)

    def totals_since(self, epoch: int, stream_offset: int) -> pa.Table:
        return duckdb_present_rows.totals_since(self._cursor(), epoch, stream_offset)

    def gaps_above(self, offsets: Offsets) -> pa.Table:
        return duckdb_present_rows.gaps_above(self._cursor(), offsets)

    def count_present(self, table: str, rows: pa.RecordBatch) -> int:
        return duckdb_present_rows.count_present(self._cursor(), table, rows)

    # Reports, until the driver has read them.

    def save_reports(self, run_id: str, attempt: str, reports: list[bytes]) -> None:
        self._cursor().execute(f"INSERT INTO {REPORTS} VALUES (?, ?, ?)", [run_id, attempt, reports])

    def read_reports(self, run_id: str) -> dict[str, list[bytes]]:
        """Attempt -> its complete set."""
        rows = self._cursor().execute(f"SELECT attempt, reports FROM {REPORTS} WHERE run_id = ?", [run_id]).fetchall()
        return {attempt: list(reports) for attempt, reports in rows}

    def discard_reports(self, keep_run_id: str | None) -> None:
        self._cursor().execute(f"DELETE FROM {REPORTS} WHERE run_id IS DISTINCT FROM ?", [keep_run_id])

    # What the tables know.

    def live_ids(self, expired_before: int | None, extra_retention: int) -> pa.Table:
        """Cold start: `fingerprint` (10 bytes) and `bucket` of ids with a row in payment_transactions that this watermark has not expired.

        expired_before: microseconds, None for all ids; bucket: minute of the latest event time over payments and duplicates.
        """
        table = _fetch(self._cursor(), LIVE_IDS, live_ids_parameters(expired_before, extra_retention))
        return table.set_column(0, "fingerprint", table.column("fingerprint").cast(pa.binary(10)))

    def present_offsets(self, table: str, where: tuple[str, int, int, int]) -> NDArray[np.int64]:
        """Sorted offsets with a row in `table`; where: (topic, partition, from_offset, to_offset)."""
        found = _fetch(self._cursor(), f"SELECT kafka_offset FROM {table} WHERE {_IN_RANGE} ORDER BY 1", _range(where))
        return np.asarray(found.column("kafka_offset").to_numpy())

    def present_gaps(self, where: tuple[str, int, int, int]) -> list[tuple[int, int]]:
        """(first, last) of the rows of offset_gaps that begin in the range."""
        condition = _IN_RANGE.replace("kafka_offset", "first_offset")
        found = _fetch(self._cursor(), f"SELECT first_offset, last_offset FROM {GAPS} WHERE {condition} ORDER BY 1", _range(where))
        return list(zip(*(column.to_pylist() for column in found.columns), strict=True))

    def present_totals(
        self, ranges: Sequence[tuple[str, int, int, int]], amount_column: str | None, currency_column: str | None
    ) -> pa.RecordBatch:
        """Rows of control_totals, computed from the rows of the three tables in the ranges."""
        cursor = self._cursor()
        names = ("topic", "partition", "from_offset", "to_offset")
        cursor.register("_ranges", pa.Table.from_pylist([dict(zip(names, where, strict=True)) for where in ranges]))
        condition = _IN_RANGE.replace("$", "_ranges.")
        sql = totals_of_rows(lambda table: f"(SELECT r.* FROM {table} r JOIN _ranges ON {condition})", amount_column, currency_column)
        found = _fetch(cursor, sql, {})
        cursor.unregister("_ranges")
        batches = found.cast(TOTALS_SCHEMA).combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=TOTALS_SCHEMA)

    def count_rows(self) -> int:
        """Rows of the three tables."""
        return sum(self._count(f"SELECT COUNT(*) FROM {table}") for table in ROW_TABLES)

    def count_in_totals(self) -> int:
        """Records that control_totals account for."""
        return self._count(f"SELECT COALESCE(SUM(records), 0)::BIGINT FROM {TOTALS}")

    def _count(self, sql: str) -> int:
        (found,) = self._cursor().execute(sql).fetchall()
        return int(found[0])

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """Each thread's own cursor: DuckDB's connections must not be shared between threads."""
        cursor = getattr(self._local, "cursor", None)
        if cursor is None:
            cursor = self._local.cursor = self._connections[-1].cursor()
        return cursor

    def _atomically(self, change: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        cursor = self._cursor()
        cursor.begin()
        try:
            result = change(cursor)
            cursor.commit()
        except duckdb.TransactionException:
            raise  # a failed commit has rolled back already
        except BaseException:
            cursor.rollback()
            raise
        return result


_IN_RANGE = "kafka_topic = $topic AND kafka_partition = $partition AND kafka_offset >= $from_offset AND kafka_offset < $to_offset"


def _range(where: tuple[str, int, int, int]) -> dict[str, Any]:
    return dict(zip(("topic", "partition", "from_offset", "to_offset"), where, strict=True))


def _fetch(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> pa.Table:
    return cursor.sql(sql, params=parameters).to_arrow_table()
