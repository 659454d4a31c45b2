"""The embedded destination: one DuckDB file behind the write-stream contract, no stronger than that contract.

Pending rows wait as Arrow IPC blobs, one row per append, so that rows and next offset are written by one transaction; commit moves them
table by table. A digest per append makes other bytes at a known offset an error.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Collection, Iterator
from typing import Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations import duckdb_ledger
from transforms.destinations.duckdb_live_ids import LIVE_IDS, live_ids_parameters
from transforms.destinations.duckdb_session import acquire, release
from transforms.destinations.duckdb_tables import APPENDS, REPORTS, STREAMS, create_tables, has_tables
from transforms.run_record import RunRecord
from transforms.tables import ROW_TABLES, TIMESTAMP
from transforms.write_streams import (
    DifferentRows,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamAlreadyCommitted,
    StreamFinalized,
    StreamNotFinalized,
    StreamNotFound,
)

_PAGE_BYTES = 64 << 20
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")
_OPEN, _FINALIZED, _COMMITTED = "OPEN", "FINALIZED", "COMMITTED"
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

    def create_stream(self, table: str) -> str:
        stream = f"{table}/{secrets.token_hex(12)}"
        self._cursor().execute(f"INSERT INTO {STREAMS} VALUES (?, ?, 0, '{_OPEN}')", [stream, table])
        return stream

    def append(self, stream: str, offset: int, rows: pa.RecordBatch) -> int:
        ipc = _to_ipc(rows)
        digest = hashlib.sha256(ipc).digest()
        return self._atomically(lambda cursor: _append(cursor, stream, offset, rows.num_rows, digest, ipc))

    def finalize_stream(self, stream: str) -> int:
        return self._atomically(lambda cursor: _finalize(cursor, stream))

    def commit_streams(self, table: str, streams: list[str]) -> None:
        self._atomically(lambda cursor: _commit(cursor, table, streams))

    def discard_streams(self, keep: Collection[str]) -> int:
        """Removes streams that are not committed and not in `keep`, with their rows; how many."""

        def discard(cursor: duckdb.DuckDBPyConnection) -> int:
            found = cursor.execute(f"SELECT stream FROM {STREAMS} WHERE state <> '{_COMMITTED}'").fetchall()
            gone = [stream for (stream,) in found if stream not in keep]
            for table in (APPENDS, STREAMS):
                cursor.execute(f"DELETE FROM {table} WHERE stream IN (SELECT unnest(?::VARCHAR[]))", [gone])
            return len(gone)

        return self._atomically(discard)

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

    def present_offsets(self, topic: str, partition: int, from_offset: int, to_offset: int) -> NDArray[np.int64]:
        """Sorted offsets of [from_offset, to_offset) with a row in one of the three tables."""
        tables = " UNION ALL ".join(
            f"SELECT kafka_offset FROM {table} WHERE kafka_topic = $topic AND kafka_partition = $partition"
            " AND kafka_offset >= $from_offset AND kafka_offset < $to_offset"
            for table in ROW_TABLES
        )
        where = {"topic": topic, "partition": partition, "from_offset": from_offset, "to_offset": to_offset}
        found = _fetch(self._cursor(), f"{tables} ORDER BY kafka_offset", where)
        return np.asarray(found.column("kafka_offset").to_numpy())

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


def _fetch(cursor: duckdb.DuckDBPyConnection, sql: str, parameters: dict[str, Any]) -> pa.Table:
    return cursor.sql(sql, params=parameters).to_arrow_table()


def _append(cursor: duckdb.DuckDBPyConnection, stream: str, offset: int, rows: int, digest: bytes, ipc: bytes) -> int:
    next_offset, state = _stream(cursor, stream)
    if offset < next_offset:
        known = cursor.execute(f"SELECT digest FROM {APPENDS} WHERE stream = ? AND stream_offset = ?", [stream, offset]).fetchone()
        if known != (digest,):
            raise DifferentRows(stream, f"offset {offset} holds other rows")
        raise OffsetAlreadyExists(stream, f"offset {offset} was written before; the stream ends at {next_offset}")
    if state != _OPEN:
        raise StreamFinalized(stream, "it takes no more rows")
    if offset > next_offset:
        raise OffsetOutOfRange(stream, f"offset {offset} lies behind the end, {next_offset}")
    cursor.execute(f"INSERT INTO {APPENDS} VALUES (?, ?, ?, ?, ?)", [stream, offset, rows, digest, ipc])
    cursor.execute(f"UPDATE {STREAMS} SET next_offset = ? WHERE stream = ?", [offset + rows, stream])
    return offset + rows


def _finalize(cursor: duckdb.DuckDBPyConnection, stream: str) -> int:
    next_offset, state = _stream(cursor, stream)
    if state == _OPEN:
        cursor.execute(f"UPDATE {STREAMS} SET state = '{_FINALIZED}' WHERE stream = ?", [stream])
    return next_offset


def _commit(cursor: duckdb.DuckDBPyConnection, table: str, streams: list[str]) -> None:
    states = {stream: _stream(cursor, stream)[1] for stream in streams}
    for stream, state in states.items():
        if state == _COMMITTED:
            raise StreamAlreadyCommitted(stream, f"it was committed to {table} before")
        if state != _FINALIZED:
            raise StreamNotFinalized(stream, "finalize it first")
    names = {row[0] for row in cursor.execute(f"SELECT table_name FROM {STREAMS} WHERE stream IN (SELECT unnest(?))", [streams]).fetchall()}
    if names - {table}:
        raise ValueError(f"streams of {sorted(names)} cannot be committed to {table}")
    for page in _pages(cursor, streams):
        rows = _rows_of(cursor, page)
        assert rows is not None  # read by its name in the statement
        cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM rows")
    cursor.execute(f"DELETE FROM {APPENDS} WHERE stream IN (SELECT unnest(?))", [streams])
    cursor.execute(f"UPDATE {STREAMS} SET state = '{_COMMITTED}' WHERE stream IN (SELECT unnest(?))", [streams])


def _pages(cursor: duckdb.DuckDBPyConnection, streams: list[str]) -> Iterator[list[str]]:
    """Streams that have rows, several to one INSERT: one for each would leave half-filled row groups and take twice as long."""
    sizes = cursor.execute(
        f"SELECT stream, sum(octet_length(ipc)) FROM {APPENDS} WHERE stream IN (SELECT unnest(?)) GROUP BY stream ORDER BY stream",
        [streams],
    ).fetchall()
    page: list[str] = []
    room = _PAGE_BYTES
    for stream, size in sizes:
        if page and size > room:
            yield page
            page, room = [], _PAGE_BYTES
        page.append(stream)
        room -= size
    if page:
        yield page


def _rows_of(cursor: duckdb.DuckDBPyConnection, streams: list[str]) -> pa.RecordBatchReader:
    """The rows of streams that have some, decompressed while they are read."""
    blobs = cursor.execute(f"SELECT ipc FROM {APPENDS} WHERE stream IN (SELECT unnest(?))", [streams]).fetchall()
    with pa.ipc.open_stream(blobs[0][0]) as first:
        schema = first.schema
    return pa.RecordBatchReader.from_batches(schema, (batch for (blob,) in blobs for batch in _from_ipc(blob)))


def _stream(cursor: duckdb.DuckDBPyConnection, stream: str) -> tuple[int, str]:
    found = cursor.execute(f"SELECT next_offset, state FROM {STREAMS} WHERE stream = ?", [stream]).fetchone()
    if found is None:
        raise StreamNotFound(stream, "there is no such stream")
    return (found[0], found[1])


def _to_ipc(rows: pa.RecordBatch) -> bytes:
    """Times lose their zone here: DuckDB's conversion from TIMESTAMPTZ would follow the session's zone."""
    columns = [_without_zone(column) for column in rows.columns]
    plain = pa.RecordBatch.from_arrays(columns, names=rows.schema.names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, plain.schema, options=_COMPRESSED) as writer:
        writer.write_batch(plain)
    return bytes(sink.getvalue())


def _from_ipc(blob: bytes) -> Iterator[pa.RecordBatch]:
    with pa.ipc.open_stream(blob) as reader:
        yield from reader


def _without_zone(column: pa.Array) -> pa.Array:
    return column.cast(_zoneless(column.type)) if _zoneless(column.type) != column.type else column


def _zoneless(kind: pa.DataType) -> pa.DataType:
    if kind == TIMESTAMP:
        return pa.timestamp("us")
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _zoneless(field.type)) for field in kind])
    if pa.types.is_list(kind):
        return pa.list_(_zoneless(kind.value_type))
    return kind
