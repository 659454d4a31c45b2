"""Rows as DuckDB takes them, and as they wait for their commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pyarrow as pa

from transforms.destinations.contract.write_streams import PENDING_STREAM
from transforms.model.tables import TIMESTAMP

_COMPRESSED, _PLAIN = pa.ipc.IpcWriteOptions(compression="lz4"), pa.ipc.IpcWriteOptions()


class EncodedRows:
    """Rows as DuckDB takes them, and their digest.

    waiting: for a PENDING stream, the rows as they wait for their commit; None for others. They are
    encoded before the append, so that no transaction is open meanwhile.
    """

    def __init__(self, rows: pa.RecordBatch, kind: str) -> None:
        self.batch = _without_zones(rows)
        self.rows: int = rows.num_rows
        is_pending = kind == PENDING_STREAM
        ipc = _to_ipc(self.batch, _COMPRESSED if is_pending else _PLAIN)
        self.digest = hashlib.sha256(ipc).digest()
        self.waiting = bytes(ipc) if is_pending else None


def rows_of_ipc(blob: bytes) -> Iterator[pa.RecordBatch]:
    """The rows of an append as they have waited."""
    with pa.ipc.open_stream(blob) as reader:
        yield from reader


def _without_zones(rows: pa.RecordBatch) -> pa.RecordBatch:
    """DuckDB's conversion from TIMESTAMPTZ would follow the session's zone."""
    columns = [_without_zone(column) for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, names=rows.schema.names)


def _to_ipc(rows: pa.RecordBatch, options: pa.ipc.IpcWriteOptions) -> pa.Buffer:
    """The rows as an Arrow IPC stream: of a slice no more than its own rows."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema, options=options) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


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
