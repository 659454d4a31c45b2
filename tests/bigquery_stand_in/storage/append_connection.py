"""One AppendRows connection: what its first request sets, what each does and is answered."""

from __future__ import annotations

from typing import Any

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.errors import StorageFailure
from tests.bigquery_stand_in.fields import storage_schema
from tests.bigquery_stand_in.storage.arrow_rows import (
    check_schema,
    malformed,
    normalized,
    read_batch,
    read_schema,
)
from tests.bigquery_stand_in.storage.names import check_stream_name, default_stream_table
from tests.bigquery_stand_in.storage.write_stream import WriteStream
from tests.bigquery_stand_in.storage.write_streams import WriteStreams
from tests.bigquery_stand_in.warehouse import Table

_RESPONSE = types.AppendRowsResponse.pb()
_ROW_ERROR = types.RowError.pb()


class AppendConnection:
    """limits.WRITE_API_RPC, AppendRowsRequest: stream and schema come with the first request and
    hold until others are sent.

    The default stream may change its table within one connection; a connection to an
    application-created stream is for that stream alone. discard_rows: rows are counted, not
    decoded, checked or kept.
    """

    def __init__(
        self,
        streams: WriteStreams,
        max_bytes: int = limits.MAX_APPEND_BYTES,
        discard_rows: bool = False,
    ) -> None:
        self._streams = streams
        self._max_bytes = max_bytes
        self._discard_rows = discard_rows
        self._name = ""
        self._stream: WriteStream | None = None
        self._schema: pa.Schema | None = None
        self._checked: tuple[str, int] | None = None
        self._told_schema: int | None = None

    @property
    def stream_name(self) -> str:
        return self._name

    def append(self, request: Any) -> Any:
        """The answer to a request that is accepted. Raises StorageFailure for any other; then
        nothing of it is written.
        """
        if request.ByteSize() > self._max_bytes:
            raise malformed(
                f"AppendRows request too large: {request.ByteSize()} limit {self._max_bytes}"
            )
        self._direct(request)
        if request.WhichOneof("rows") == "proto_rows":
            raise StorageFailure(
                grpc.StatusCode.UNIMPLEMENTED,
                "the stand-in takes Arrow rows only",
                ends_connection=True,
            )
        if self._schema is None:
            raise StorageFailure(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the first request of a connection must carry the schema of its rows",
                ends_connection=True,
            )
        if not request.arrow_rows.rows.serialized_record_batch:
            raise malformed("Rows must be specified")
        batch = read_batch(request.arrow_rows.rows.serialized_record_batch, self._schema)
        if not batch.num_rows:
            raise malformed("Rows must be specified")
        return self._append(request, batch)

    def close(self) -> None:
        if self._stream is not None and self._stream.connection is self:
            self._stream.connection = None

    def _direct(self, request: Any) -> None:
        name = request.write_stream or self._name
        if not name:
            raise StorageFailure(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the first request of a connection must carry write_stream",
                ends_connection=True,
            )
        if name != self._name:
            check_stream_name(name)
            if self._name and not (default_stream_table(name) and default_stream_table(self._name)):
                raise StorageFailure(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"this connection appends to {self._name}, not to {name}",
                    ends_connection=True,
                )
            self._name, self._schema, self._checked, self._told_schema = name, None, None, None
        if request.arrow_rows.writer_schema.serialized_schema:
            self._schema, self._checked = (
                read_schema(request.arrow_rows.writer_schema.serialized_schema),
                None,
            )

    def _append(self, request: Any, batch: pa.RecordBatch) -> Any:
        response = _RESPONSE(write_stream=self._name)
        default = default_stream_table(self._name)
        if default is not None:
            table = self._streams.table(default)
            if request.HasField("offset"):
                raise malformed("an offset must not be given when appending to the default stream")
            if not self._discard_rows:
                self._streams.insert((table.dataset, table.name), [self._rows(batch, table)])
            response.append_result.SetInParent()
        else:
            stream = self._active(self._streams.get(self._name))
            table = self._streams.table(self._name.partition("/streams/")[0])
            offset = request.offset.value if request.HasField("offset") else None
            if offset is None or offset == stream.next_offset:
                stream.check_append(offset)
            rows: pa.RecordBatch | int = (
                batch.num_rows if self._discard_rows else self._rows(batch, table)
            )
            response.append_result.offset.value = self._streams.append(stream, offset, rows)
        self._tell_schema(table, response)
        return response

    def _active(self, stream: WriteStream) -> WriteStream:
        if self._stream is None:
            self._stream, stream.connection = stream, self
        elif stream.connection is not self:
            raise StorageFailure(
                grpc.StatusCode.ABORTED,
                f"another connection to {self._name} has been opened",
                ends_connection=True,
            )
        return stream

    def _rows(self, batch: pa.RecordBatch, table: Table) -> pa.RecordBatch:
        version = (self._name, table.schema_version)
        if self._checked != version:
            check_schema(batch.schema, table.fields, self._name)
            self._checked = version
        return normalized(batch, table.fields)

    def _tell_schema(self, table: Table, response: Any) -> None:
        """limits.WRITE_API: "if the underlying table schema changes while the client is streaming,
        the API notifies the client".
        """
        if self._told_schema is not None and self._told_schema != table.schema_version:
            response.updated_schema.CopyFrom(storage_schema(table.fields))
        self._told_schema = table.schema_version


def refusal(failure: StorageFailure, stream: str, with_details: bool) -> Any:
    """AppendRowsResponse.error (limits.WRITE_API_RPC): the connection goes on."""
    response = _RESPONSE(write_stream=stream)
    response.error.CopyFrom(failure.status(with_details))
    response.row_errors.extend(
        _ROW_ERROR(index=index, code=1, message=message) for index, message in failure.row_errors
    )
    return response
