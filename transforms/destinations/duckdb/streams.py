"""Write streams as tables of DuckDB.

Every call is one transaction, and its function below is what happens within it. Appends that are in
flight at the same time are one transaction together: in_flight.py.

Pending rows wait as Arrow IPC blobs, one row per append, so that rows and next offset are written
by one transaction; commit moves them table by table. Rows of a COMMITTED stream go into their table
by that transaction. A digest per append makes other bytes at a known offset an error.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Collection, Iterator
from contextlib import nullcontext

import duckdb
import pyarrow as pa

from transforms.destinations.contract.run_ledger import PREPARED
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER
from transforms.destinations.contract.shard_ledger_rows import decode_epochs
from transforms.destinations.contract.write_streams import (
    COMMITTED_STREAM,
    PENDING_STREAM,
    StreamAlreadyCommitted,
    StreamNotFinalized,
)
from transforms.destinations.duckdb.encoded_rows import EncodedRows, rows_of_ipc
from transforms.destinations.duckdb.in_flight import (
    OPEN,
    Append,
    AppendsInFlight,
    InFlight,
    insert,
    known,
    stream_of,
    streams_of,
)
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.destinations.duckdb.tables import APPENDS, STREAMS
from transforms.model.tables import RUNS

_PAGE_BYTES = 64 << 20
_MANY_ROWS = 122_880
"""From here on a commit runs on all cores: DuckDB's row group, the least that a core works on.

https://duckdb.org/docs/stable/guides/performance/how_to_tune_workloads#parallelism-multi-core-processing
"""
_FINALIZED, _COMMITTED = "FINALIZED", "COMMITTED"
_CLOSED = {(PENDING_STREAM, _COMMITTED), (COMMITTED_STREAM, _FINALIZED)}


class DuckDBStreams:
    """The write streams of a DuckDB file, any number of them; see contract/write_streams.py."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session
        self._kinds: dict[str, str] = {}
        """Of streams that are written to here: a stream keeps its kind."""
        self._local = threading.local()

    def create(self, table: str, kind: str = PENDING_STREAM) -> str:
        stream = f"{table}/{secrets.token_hex(12)}"
        self._session.cursor().execute(
            f"INSERT INTO {STREAMS} VALUES (?, ?, 0, '{OPEN}', ?)", [stream, table, kind]
        )
        self._kinds[stream] = kind
        return stream

    def send(self, stream: str, offset: int, rows: pa.RecordBatch) -> InFlight:
        if stream not in self._kinds:
            self._kinds[stream] = stream_of(self._session.cursor(), stream).kind
        kind = self._kinds[stream]
        if kind == COMMITTED_STREAM:
            self._session.stay_on_one_thread()
        in_flight: AppendsInFlight | None = getattr(self._local, "in_flight", None)
        if in_flight is None or not in_flight.takes_more:
            in_flight = self._local.in_flight = AppendsInFlight(self._session)
        return in_flight.add(Append(stream, offset, EncodedRows(rows, kind)))

    def finalize(self, stream: str) -> int:
        self._kinds.pop(stream, None)
        return self._session.atomically(lambda cursor: finalize(cursor, stream))

    def make_room(self, streams: int) -> None:
        """Does nothing: a stream holds nothing open."""

    def commit(self, table: str, streams: list[str]) -> None:
        def change(cursor: duckdb.DuckDBPyConnection) -> None:
            many = rows_to_commit(cursor, table, streams) >= _MANY_ROWS
            with self._session.on_all_threads() if many else nullcontext():
                commit(cursor, table, streams)

        self._session.atomically(change)

    def discard(self, keep: Collection[str]) -> int:
        self._kinds.clear()
        return self._session.atomically(lambda cursor: discard(cursor, keep))

    def forget(self, streams: Collection[str]) -> None:
        self._session.atomically(lambda cursor: forget(cursor, streams))

    def forget_closed(self) -> None:
        self._session.atomically(lambda cursor: forget(cursor, None))


def discard(cursor: duckdb.DuckDBPyConnection, keep: Collection[str]) -> int:
    """Removes pending streams that are not in `keep`; returns how many."""
    found = cursor.execute(
        f"SELECT stream FROM {STREAMS} WHERE state <> '{_COMMITTED}' AND kind = '{PENDING_STREAM}'"
    ).fetchall()
    left = [stream for (stream,) in found if stream not in keep]
    _remove(cursor, left)
    return len(left)


def forget(cursor: duckdb.DuckDBPyConnection, streams: Collection[str] | None) -> None:
    """Removes those of the streams that are closed; None: all that no ledger names."""
    found = cursor.execute(f"SELECT stream, kind, state FROM {STREAMS}").fetchall()
    closed = {stream for stream, kind, state in found if (kind, state) in _CLOSED}
    if closed and streams is None:
        _remove(cursor, closed - _named_by_ledgers(cursor))
    elif closed and streams is not None:
        _remove(cursor, closed.intersection(streams))


def _remove(cursor: duckdb.DuckDBPyConnection, streams: Collection[str]) -> None:
    if streams:
        for table in (APPENDS, STREAMS):
            cursor.execute(
                f"DELETE FROM {table} WHERE stream IN (SELECT unnest(?::VARCHAR[]))",
                [list(streams)],
            )


def _named_by_ledgers(cursor: duckdb.DuckDBPyConnection) -> set[str]:
    """Streams of a PREPARED record, and of the epochs that no recovery of a shard has closed."""
    prepared = cursor.execute(
        f"SELECT unnest(tables).commit_groups FROM {RUNS} WHERE status = '{PREPARED}'"
    ).fetchall()
    named = {stream for (groups,) in prepared for group in groups for stream in group}
    there = cursor.execute(
        "SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [SHARD_LEDGER]
    ).fetchall()
    if there:
        rows = cursor.execute(f"SELECT open_epochs FROM {SHARD_LEDGER}").fetchall()
        epochs = [epoch for (text,) in rows for epoch in decode_epochs(text)]
        named |= {stream for epoch in epochs for stream in epoch.streams.values()}
    return named


def finalize(cursor: duckdb.DuckDBPyConnection, stream: str) -> int:
    """Closes the stream; returns its number of rows, which is where it ends."""
    found = stream_of(cursor, stream)
    if found.state == OPEN:
        cursor.execute(f"UPDATE {STREAMS} SET state = '{_FINALIZED}' WHERE stream = ?", [stream])
    return found.next_offset


def rows_to_commit(cursor: duckdb.DuckDBPyConnection, table: str, streams: list[str]) -> int:
    """How many rows the streams have; raises what speaks against committing one of them."""
    rows, found = 0, streams_of(cursor, streams)
    for name in streams:
        stream = known(found, name)
        rows += stream.next_offset
        if (stream.table, stream.kind) != (table, PENDING_STREAM):
            raise ValueError(
                f"stream {name} is a {stream.kind} stream of {stream.table}; only PENDING streams"
                f" of {table} can be committed to it"
            )
        if stream.state == _COMMITTED:
            raise StreamAlreadyCommitted(name, f"it was committed to {table} before")
        if stream.state != _FINALIZED:
            raise StreamNotFinalized(name, "finalize it first")
    return rows


def commit(cursor: duckdb.DuckDBPyConnection, table: str, streams: list[str]) -> None:
    """Moves the rows of all streams, which rows_to_commit has looked at."""
    for page in _pages(cursor, streams):
        insert(cursor, table, _rows_of(cursor, page))
    cursor.execute(f"DELETE FROM {APPENDS} WHERE stream IN (SELECT unnest(?))", [streams])
    cursor.execute(
        f"UPDATE {STREAMS} SET state = '{_COMMITTED}' WHERE stream IN (SELECT unnest(?))", [streams]
    )


def _pages(cursor: duckdb.DuckDBPyConnection, streams: list[str]) -> Iterator[list[str]]:
    """Streams that have rows, several to one INSERT.

    One INSERT for each would leave half-filled row groups and take twice as long.
    """
    sizes = cursor.execute(
        f"SELECT stream, sum(octet_length(ipc)) FROM {APPENDS} WHERE stream IN (SELECT unnest(?))"
        " GROUP BY stream ORDER BY stream",
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
    blobs = cursor.execute(
        f"SELECT ipc FROM {APPENDS} WHERE stream IN (SELECT unnest(?))", [streams]
    ).fetchall()
    with pa.ipc.open_stream(blobs[0][0]) as first:
        schema = first.schema
    return pa.RecordBatchReader.from_batches(
        schema, (batch for (blob,) in blobs for batch in rows_of_ipc(blob))
    )
