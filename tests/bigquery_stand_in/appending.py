"""Requests of AppendRows as tests send them, and what of the answers they look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types
from google.protobuf.wrappers_pb2 import Int64Value

StorageErrorCode = types.StorageError.StorageErrorCode

SECONDS = 20
"""A call that has not answered by then fails the test."""


def append_request(
    stream: str, offset: int | None, rows: pa.RecordBatch, *, schema: bool = True
) -> types.AppendRowsRequest:
    """schema: as the first request of a connection needs it."""
    request = types.AppendRowsRequest(write_stream=stream)
    if offset is not None:
        request.offset = Int64Value(value=offset)
    if schema:
        request.arrow_rows.writer_schema.serialized_schema = rows.schema.serialize().to_pybytes()
    request.arrow_rows.rows.serialized_record_batch = rows.serialize().to_pybytes()
    return request


def send(
    client: BigQueryWriteClient, requests: Iterable[types.AppendRowsRequest]
) -> list[types.AppendRowsResponse]:
    """All answers of one connection. Without retries: the library would send an iterator again that
    is used up.
    """
    return list(client.append_rows(iter(requests), retry=None, timeout=SECONDS))


def append(
    client: BigQueryWriteClient, stream: str, offset: int | None, rows: pa.RecordBatch
) -> types.AppendRowsResponse:
    """One append on a connection of its own."""
    (answer,) = send(client, [append_request(stream, offset, rows)])
    return answer


def storage_code(status: Any) -> StorageErrorCode | None:
    """The code of the StorageError in the details of a google.rpc.Status or an exception of
    google.api_core; None without details.
    """
    for packed in status.details:
        error = types.StorageError.pb()()
        if packed.Unpack(error):
            return StorageErrorCode(error.code)
    return None
