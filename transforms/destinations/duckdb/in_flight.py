"""Appends in flight: all that a thread has sent are written by one transaction, at the first wait.

An append of a few rows takes half as long as a transaction with one, and the others share the rest:
with a transaction for each, the shards of a bundle took longer than the bundle had collected rows.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import duckdb
import pyarrow as pa

from transforms.destinations.contract.write_streams import (
    COMMITTED_STREAM,
    DifferentRows,
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamError,
    StreamFinalized,
    StreamNotFound,
)
from transforms.destinations.duckdb.encoded_rows import EncodedRows
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.destinations.duckdb.tables import APPENDS, STREAMS

OPEN: Final = "OPEN"
"""State of a stream that takes rows."""


@dataclass(frozen=True)
class Append:
    """Rows for an offset of a stream."""

    stream: str
    offset: int
    encoded: EncodedRows


@dataclass(frozen=True)
class Stream:
    """As the file has it."""

    table: str
    next_offset: int
    state: str
    kind: str


class AppendsInFlight:
    """Those of one thread: a wait in another thread must not come while this one still sends."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session
        self._appends: list[Append] = []
        self._answers: list[int | StreamError] | None = None
        self._guard = threading.Lock()
        self.takes_more = True
        """Until the first wait."""

    def add(self, append: Append) -> InFlight:
        self._appends.append(append)
        return InFlight(self, len(self._appends) - 1)

    def answer(self, number: int) -> int:
        """The offset behind the rows of an append; raises what it was refused with.

        Where the transaction fails, nothing is written, and the next wait tries again.
        """
        self.takes_more = False
        with self._guard:
            if self._answers is None:
                appends = self._appends
                self._answers = self._session.atomically(lambda cursor: write(cursor, appends))
                self._appends = []
            answer = self._answers[number]
        if isinstance(answer, StreamError):
            raise answer
        return answer


@dataclass(frozen=True)
class InFlight:
    """One of them; see contract/write_streams.py, Acknowledgement."""

    appends: AppendsInFlight
    number: int

    def wait(self) -> int:
        return self.appends.answer(self.number)


def write(cursor: duckdb.DuckDBPyConnection, appends: Sequence[Append]) -> list[int | StreamError]:
    """Writes the appends that hold to their streams' offsets, in order.

    Returns the offset behind each, or what refuses it: then the others count all the same.
    """
    streams = streams_of(cursor, [append.stream for append in appends])
    taken: list[Append] = []
    answers: list[int | StreamError] = []
    for append in appends:
        try:
            stream = known(streams, append.stream)
            _judge(cursor, append, stream, taken)
        except StreamError as refusal:
            answers.append(refusal)
            continue
        end = append.offset + append.encoded.rows
        streams[append.stream] = replace(stream, next_offset=end)
        taken.append(append)
        answers.append(end)
    if taken:
        _insert_taken(cursor, taken, streams)
    return answers


def _judge(
    cursor: duckdb.DuckDBPyConnection, append: Append, stream: Stream, taken: Sequence[Append]
) -> None:
    """Raises StreamError. stream: behind the appends that were taken just now."""
    name, offset, end = append.stream, append.offset, stream.next_offset
    if offset < end:
        if _digest_at(cursor, name, offset, taken) != append.encoded.digest:
            raise DifferentRows(name, f"offset {offset} holds other rows")
        raise OffsetAlreadyExists(
            name, f"offset {offset} was written before; the stream ends at {end}"
        )
    if stream.state != OPEN:
        raise StreamFinalized(name, "it takes no more rows")
    if offset > end:
        raise OffsetOutOfRange(name, f"offset {offset} lies behind the end, {end}")


def _digest_at(
    cursor: duckdb.DuckDBPyConnection, stream: str, offset: int, taken: Sequence[Append]
) -> bytes | None:
    for append in taken:
        if (append.stream, append.offset) == (stream, offset):
            return append.encoded.digest
    found = cursor.execute(
        f"SELECT digest FROM {APPENDS} WHERE stream = ? AND stream_offset = ?", [stream, offset]
    ).fetchone()
    return found[0] if found else None


def _insert_taken(
    cursor: duckdb.DuckDBPyConnection, taken: Sequence[Append], streams: Mapping[str, Stream]
) -> None:
    """streams: behind the appends."""
    for table, rows in _visible_rows(taken, streams):
        insert(cursor, table, rows)
    values = ", ".join(["(?, ?, ?, ?, ?)"] * len(taken))
    cursor.execute(
        f"INSERT INTO {APPENDS} VALUES {values}",
        [
            value
            for append in taken
            for value in (
                append.stream,
                append.offset,
                append.encoded.rows,
                append.encoded.digest,
                append.encoded.waiting,
            )
        ],
    )
    names = list({append.stream for append in taken})
    cursor.execute(
        f"UPDATE {STREAMS} SET next_offset ="
        " map_extract_value(map(?::VARCHAR[], ?::BIGINT[]), stream)"
        " WHERE list_contains(?::VARCHAR[], stream)",
        [names, [streams[name].next_offset for name in names], names],
    )


def _visible_rows(
    taken: Sequence[Append], streams: Mapping[str, Stream]
) -> Iterator[tuple[str, pa.RecordBatchReader]]:
    """The rows that their table gets at once, all that have the same columns together."""
    parts: dict[tuple[str, pa.Schema], list[pa.RecordBatch]] = {}
    for append in taken:
        stream = streams[append.stream]
        if stream.kind == COMMITTED_STREAM:
            batch = append.encoded.batch
            parts.setdefault((stream.table, batch.schema), []).append(batch)
    for (table, schema), batches in parts.items():
        yield table, pa.RecordBatchReader.from_batches(schema, batches)


def insert(cursor: duckdb.DuckDBPyConnection, table: str, rows: pa.RecordBatchReader) -> None:
    """Inserts under a name that no table of the user's can have.

    A table would win over registered rows of the same name.
    """
    name = f"_rows_{secrets.token_hex(16)}"
    cursor.register(name, rows)
    cursor.execute(f"INSERT INTO {table} BY NAME SELECT * FROM {name}").fetchall()
    cursor.unregister(name)


def streams_of(cursor: duckdb.DuckDBPyConnection, names: Sequence[str]) -> dict[str, Stream]:
    """Those of the streams that there are, by name."""
    found = cursor.execute(
        f"SELECT stream, table_name, next_offset, state, kind FROM {STREAMS}"
        " WHERE list_contains(?::VARCHAR[], stream)",
        [list(names)],
    ).fetchall()
    return {name: Stream(*rest) for name, *rest in found}


def known(streams: Mapping[str, Stream], name: str) -> Stream:
    """Raises StreamNotFound."""
    if name not in streams:
        raise StreamNotFound(name, "there is no such stream")
    return streams[name]


def stream_of(cursor: duckdb.DuckDBPyConnection, name: str) -> Stream:
    """Raises StreamNotFound."""
    return known(streams_of(cursor, [name]), name)
