"""Write streams as tables of DuckDB.

Every call is one transaction, and its function below is what happens within it.

Pending rows wait as Arrow IPC blobs, one row per append, so that rows and next offset are written
by one transaction; commit moves them table by table. Rows of a COMMITTED stream go into their table
by that transaction. A digest per append makes other bytes at a known offset an error.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator

import duckdb
import pyarrow as pa

from transforms.destinations.contract.run_ledger import PREPARED
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER
from transforms.destinations.contract.shard_ledger_rows import decode_epochs
from transforms.destinations.contract.write_streams import (
    COMMITTED_STREAM,
    PENDING_STREAM,
    Acknowledged,
    DifferentRows,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamAlreadyCommitted,
    StreamFinalized,
    StreamNotFinalized,
    StreamNotFound,
)
from transforms.destinations.duckdb.encoded_rows import EncodedRows, rows_of_ipc
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.destinations.duckdb.tables import APPENDS, STREAMS
from transforms.model.tables import RUNS

_PAGE_BYTES = 64 << 20
_MANY_ROWS = 122_880
"""From here on a commit runs on all cores: DuckDB's row group, the least that a core works on.

https://duckdb.org/docs/stable/guides/performance/how_to_tune_workloads#parallelism-multi-core-processing
"""
_OPEN, _FINALIZED, _COMMITTED = "OPEN", "FINALIZED", "COMMITTED"
_CLOSED = {(PENDING_STREAM, _COMMITTED), (COMMITTED_STREAM, _FINALIZED)}


class DuckDBStreams:
    """The write streams of a DuckDB file, any number of them; see contract/write_streams.py."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session
        self._kinds: dict[str, str] = {}
        """Of streams that are written to here: a stream keeps its kind."""

    def create(self, table: str, kind: str = PENDING_STREAM) -> str:
        stream = f"{table}/{secrets.token_hex(12)}"
        self._session.cursor().execute(
            f"INSERT INTO {STREAMS} VALUES (?, ?, 0, '{_OPEN}', ?)", [stream, table, kind]
        )
        self._kinds[stream] = kind
        return stream

    def send(self, stream: str, offset: int, rows: pa.RecordBatch) -> Acknowledged:
        if stream not in self._kinds:
            _, _, _, self._kinds[stream] = _stream(self._session.cursor(), stream)
        kind = self._kinds[stream]
        if kind == COMMITTED_STREAM:
            self._session.use_all_threads(False)
        encoded = EncodedRows(rows, kind)
        return Acknowledged(
            self._session.atomically(lambda cursor: append(cursor, stream, offset, encoded))
        )

    def finalize(self, stream: str) -> int:
        self._kinds.pop(stream, None)
        return self._session.atomically(lambda cursor: finalize(cursor, stream))

    def make_room(self, streams: int) -> None:
        """Does nothing: a stream holds nothing open."""

    def commit(self, table: str, streams: list[str]) -> None:
        def change(cursor: duckdb.DuckDBPyConnection) -> None:
            if rows_to_commit(cursor, table, streams) >= _MANY_ROWS:
                self._session.use_all_threads(True)
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


def append(
    cursor: duckdb.DuckDBPyConnection, stream: str, offset: int, encoded: EncodedRows
) -> int:
    """Appends the rows; returns the offset behind them."""
    table, next_offset, state, kind = _stream(cursor, stream)
    if offset < next_offset:
        known = cursor.execute(
            f"SELECT digest FROM {APPENDS} WHERE stream = ? AND stream_offset = ?", [stream, offset]
        ).fetchone()
        if known != (encoded.digest,):
            raise DifferentRows(stream, f"offset {offset} holds other rows")
        raise OffsetAlreadyExists(
            stream, f"offset {offset} was written before; the stream ends at {next_offset}"
        )
    if state != _OPEN:
        raise StreamFinalized(stream, "it takes no more rows")
    if offset > next_offset:
        raise OffsetOutOfRange(stream, f"offset {offset} lies behind the end, {next_offset}")
    if kind == COMMITTED_STREAM:
        _insert(cursor, table, encoded.reader())
    cursor.execute(
        f"INSERT INTO {APPENDS} VALUES (?, ?, ?, ?, ?)",
        [stream, offset, encoded.rows, encoded.digest, encoded.waiting],
    )
    cursor.execute(
        f"UPDATE {STREAMS} SET next_offset = ? WHERE stream = ?", [offset + encoded.rows, stream]
    )
    return offset + encoded.rows


def finalize(cursor: duckdb.DuckDBPyConnection, stream: str) -> int:
    """Closes the stream; returns its number of rows, which is where it ends."""
    _, next_offset, state, _ = _stream(cursor, stream)
    if state == _OPEN:
        cursor.execute(f"UPDATE {STREAMS} SET state = '{_FINALIZED}' WHERE stream = ?", [stream])
    return next_offset


def rows_to_commit(cursor: duckdb.DuckDBPyConnection, table: str, streams: list[str]) -> int:
    """How many rows the streams have; raises what speaks against committing one of them."""
    rows = 0
    for stream in streams:
        its_table, next_offset, state, kind = _stream(cursor, stream)
        rows += next_offset
        if (its_table, kind) != (table, PENDING_STREAM):
            raise ValueError(
                f"stream {stream} is a {kind} stream of {its_table}; only PENDING streams of"
                f" {table} can be committed to it"
            )
        if state == _COMMITTED:
            raise StreamAlreadyCommitted(stream, f"it was committed to {table} before")
        if state != _FINALIZED:
            raise StreamNotFinalized(stream, "finalize it first")
    return rows


def commit(cursor: duckdb.DuckDBPyConnection, table: str, streams: list[str]) -> None:
    """Moves the rows of all streams, which rows_to_commit has looked at."""
    for page in _pages(cursor, streams):
        _insert(cursor, table, _rows_of(cursor, page))
    cursor.execute(f"DELETE FROM {APPENDS} WHERE stream IN (SELECT unnest(?))", [streams])
    cursor.execute(
        f"UPDATE {STREAMS} SET state = '{_COMMITTED}' WHERE stream IN (SELECT unnest(?))", [streams]
    )


def _insert(cursor: duckdb.DuckDBPyConnection, table: str, rows: pa.RecordBatchReader) -> None:
    """Inserts under a name that no table of the user's can have.

    A table would win over registered rows of the same name.
    """
    name = f"_rows_{secrets.token_hex(16)}"
    cursor.register(name, rows)
    cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM {name}").fetchall()
    cursor.unregister(name)


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


def _stream(cursor: duckdb.DuckDBPyConnection, stream: str) -> tuple[str, int, str, str]:
    """(table, next offset, state, kind)."""
    found = cursor.execute(
        f"SELECT table_name, next_offset, state, kind FROM {STREAMS} WHERE stream = ?", [stream]
    ).fetchall()
    if not found:
        raise StreamNotFound(stream, "there is no such stream")
    return (found[0][0], found[0][1], found[0][2], found[0][3])
