"""All write streams: create, append, finalize, flush, commit, with the states, limits and errors of
the Write API.

Sources: https://cloud.google.com/bigquery/docs/write-api, .../write-api-batch,
.../write-api-streaming and
https://cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1.
"""

from __future__ import annotations

import secrets
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import duckdb
import grpc
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.errors import RestFailure, StorageErrorCode, StorageFailure
from tests.bigquery_stand_in.storage.names import default_stream_table, parse_table
from tests.bigquery_stand_in.storage.write_stream import StreamType, WriteStream
from tests.bigquery_stand_in.warehouse import Table, Warehouse


@dataclass
class WriteStreams:
    """strict: other rows at a known offset are a violation and an INTERNAL answer. violations: one
    sentence each, for the test to read.
    """

    warehouse: Warehouse
    strict: bool = True
    streams_per_hour: int = limits.CREATE_STREAMS_PER_HOUR
    violations: list[str] = field(default_factory=list)
    _streams: dict[str, WriteStream] = field(default_factory=dict)
    _created: deque[datetime] = field(default_factory=deque)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def table(self, path: str) -> Table:
        dataset, name = parse_table(path, self.warehouse.project)
        try:
            table = self.warehouse.table(dataset, name)
        except RestFailure as missing:
            raise StorageFailure(
                grpc.StatusCode.NOT_FOUND,
                missing.message,
                storage_code=StorageErrorCode.TABLE_NOT_FOUND,
                entity=path,
            ) from missing
        if table.view_query is not None:
            raise StorageFailure(
                grpc.StatusCode.INVALID_ARGUMENT, f"{path} is a view: nothing can be written to it"
            )
        return table

    def create(self, parent: str, kind: StreamType) -> WriteStream:
        table = self.table(parent)
        if kind == StreamType.TYPE_UNSPECIFIED:
            raise StorageFailure(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the type of the stream must be COMMITTED, PENDING or BUFFERED",
            )
        now = self.warehouse.clock()
        with self._lock:
            while self._created and now - self._created[0] >= timedelta(hours=1):
                self._created.popleft()
            if len(self._created) >= self.streams_per_hour:
                raise StorageFailure(
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                    f"Exceeded quota of {self.streams_per_hour} CreateWriteStream calls per hour",
                )
            self._created.append(now)
            name = f"{parent}/streams/{secrets.token_urlsafe(24)}"
            stream = self._streams[name] = WriteStream(
                name, (table.dataset, table.name), kind, now, now
            )
        return stream

    def get(self, name: str) -> WriteStream:
        """Raises StorageFailure (NOT_FOUND, STREAM_NOT_FOUND) for a stream that never was or whose
        time is over.
        """
        with self._lock:
            stream = self._streams.get(name)
            if stream is not None and stream.is_gone(self.warehouse.clock()):
                self.forget(name)
                stream = None
        if stream is None:
            raise StorageFailure(
                grpc.StatusCode.NOT_FOUND,
                f"Requested entity was not found. Entity: {name}",
                storage_code=StorageErrorCode.STREAM_NOT_FOUND,
                entity=name,
            )
        return stream

    def forget(self, name: str) -> None:
        """As if the stream had never been; rows that waited in it are lost."""
        with self._lock:
            self._streams.pop(name, None)

    def append(self, stream: WriteStream, offset: int | None, rows: pa.RecordBatch | int) -> int:
        """Adds normalized rows, or only counts them when an int is given; returns the offset of the
        first one.
        """
        with stream.lock:
            fingerprints = (
                None if isinstance(rows, int) or not self.strict else self._fingerprints(rows)
            )
            try:
                stream.check_append(offset)
            except StorageFailure as refused:
                if (
                    refused.storage_code == StorageErrorCode.OFFSET_ALREADY_EXISTS
                    and fingerprints is not None
                    and offset is not None
                ):
                    self._check_same_rows(stream, offset, fingerprints)
                raise
            count = rows if isinstance(rows, int) else rows.num_rows
            now = self.warehouse.clock()
            if not isinstance(rows, int):
                if stream.kind == StreamType.COMMITTED:
                    self.insert(stream.table, [rows])
                else:
                    stream.waiting.append(rows)
            return stream.accept(count, fingerprints, now)

    def finalize(self, name: str) -> int:
        """Closes the stream and returns its rows; the same again, also after the commit."""
        if default_stream_table(name):
            raise StorageFailure(
                grpc.StatusCode.INVALID_ARGUMENT,
                "FinalizeWriteStream is not supported on the default stream",
                storage_code=StorageErrorCode.INVALID_STREAM_TYPE,
                entity=name,
            )
        stream = self.get(name)
        with stream.lock:
            stream.finalized = stream.finalized or self.warehouse.clock()
            return stream.next_offset

    def flush(self, name: str, offset: int | None) -> int:
        """BUFFERED only: rows up to and including `offset` become visible, all if None.
        ALREADY_EXISTS: they had been flushed before.
        """
        stream = self.get(name)
        with stream.lock:
            if stream.kind != StreamType.BUFFERED:
                raise stream.failure(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    StorageErrorCode.INVALID_STREAM_TYPE,
                    "FlushRows is only for BUFFERED streams",
                )
            last = stream.next_offset - 1 if offset is None else offset
            if last >= stream.next_offset:
                raise stream.failure(
                    grpc.StatusCode.OUT_OF_RANGE,
                    StorageErrorCode.OFFSET_OUT_OF_RANGE,
                    f"The offset {last} is beyond the stream",
                )
            if last < stream.flushed:
                raise stream.failure(
                    grpc.StatusCode.ALREADY_EXISTS,
                    StorageErrorCode.OFFSET_ALREADY_EXISTS,
                    f"The offset {last} has been flushed",
                )
            rows = pa.Table.from_batches(stream.waiting)
            count = last + 1 - stream.flushed
            self.insert(stream.table, rows.slice(0, count).to_batches())
            stream.waiting = rows.slice(count).to_batches()
            stream.flushed = last + 1
            return last

    def commit(self, parent: str, names: Sequence[str]) -> tuple[datetime | None, list[Any]]:
        """(commit time, no errors), or (None, stream errors) and nothing has happened: atomic over
        the streams of one table.
        """
        table = self.table(parent)
        self._check_group(parent, names)
        with self._lock, self.warehouse.writing:
            streams, errors = [], []
            for name in names:
                try:
                    streams.append(self._committable(name))
                except StorageFailure as failure:
                    errors.append(failure.storage_error())
            if errors:
                return None, errors
            self.insert(
                (table.dataset, table.name),
                [batch for stream in streams for batch in stream.waiting],
            )
            now = self.warehouse.clock()
            for stream in streams:
                stream.committed = now
                stream.waiting.clear()
            return now, []

    def insert(self, key: tuple[str, str], batches: list[pa.RecordBatch]) -> None:
        """Makes rows visible in the table. Raises StorageFailure when the table was deleted."""
        with self.warehouse.writing:
            table = self.table(
                f"projects/{self.warehouse.project}/datasets/{key[0]}/tables/{key[1]}"
            )
            if batches:
                with self.warehouse.change(table) as cursor:
                    _insert(cursor, table, batches)
                table.last_streamed = self.warehouse.clock()

    def _check_group(self, parent: str, names: Sequence[str]) -> None:
        refusal = None
        if not names:
            refusal = "write_streams must not be empty"
        elif len(names) > limits.MAX_STREAMS_PER_COMMIT:
            refusal = (
                f"{len(names)} streams, but at most {limits.MAX_STREAMS_PER_COMMIT} can be"
                " committed in one call"
            )
        elif len(set(names)) < len(names):
            refusal = "a stream is named twice"
        elif foreign := [name for name in names if not name.startswith(f"{parent}/streams/")]:
            refusal = f"stream {foreign[0]} does not belong to {parent}"
        if refusal:
            raise StorageFailure(grpc.StatusCode.INVALID_ARGUMENT, refusal, entity=parent)

    def _committable(self, name: str) -> WriteStream:
        stream = self.get(name)
        code = grpc.StatusCode.INVALID_ARGUMENT
        if stream.kind != StreamType.PENDING:
            raise stream.failure(
                code, StorageErrorCode.INVALID_STREAM_TYPE, "only PENDING streams can be committed"
            )
        if stream.committed is not None:
            raise stream.failure(
                code, StorageErrorCode.STREAM_ALREADY_COMMITTED, "Stream is already committed"
            )
        if stream.finalized is None:
            raise stream.failure(
                code, StorageErrorCode.INVALID_STREAM_STATE, "Stream has not been finalized"
            )
        return stream

    def _check_same_rows(
        self, stream: WriteStream, offset: int, fingerprints: NDArray[np.uint64]
    ) -> None:
        if stream.differs(offset, fingerprints):
            violation = f"{stream.name}: other rows than before were sent at offset {offset}"
            self.violations.append(violation)
            raise StorageFailure(grpc.StatusCode.INTERNAL, violation)

    def _fingerprints(self, rows: pa.RecordBatch) -> NDArray[np.uint64]:
        with self.warehouse.cursor() as cursor:
            cursor.register("_rows", pa.Table.from_batches([rows]))
            return (
                cursor.sql("SELECT hash(r) AS h FROM _rows r")
                .to_arrow_table()
                .column("h")
                .to_numpy()
                .copy()
            )


def _insert(cursor: duckdb.DuckDBPyConnection, table: Table, batches: list[pa.RecordBatch]) -> None:
    # Columns may have been added to the table while rows were waiting, so that batches differ and
    # some lack the newest columns.
    cursor.register(
        "_rows",
        pa.concat_tables(
            [pa.Table.from_batches([batch]) for batch in batches], promote_options="default"
        ),
    )
    cursor.execute(f"INSERT INTO {table.sql_name} BY NAME SELECT * FROM _rows")
    cursor.unregister("_rows")
