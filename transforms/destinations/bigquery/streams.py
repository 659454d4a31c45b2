"""Write streams of BigQuery, by the Storage Write API."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from functools import partial

import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from transforms.destinations.bigquery.answers import Answer, Meaning, of_commit
from transforms.destinations.bigquery.append_channels import AppendChannels
from transforms.destinations.bigquery.append_connection import (
    Append,
    AppendConnection,
)
from transforms.destinations.bigquery.clients import Clients
from transforms.destinations.bigquery.limits import (
    ANSWER_SECONDS,
    MAX_BYTES_IN_FLIGHT,
    MAX_CONNECTIONS,
)
from transforms.destinations.bigquery.retry import patiently
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.destinations.contract.write_streams import (
    PENDING_STREAM,
    STREAMS_PER_COMMIT,
    StreamAlreadyCommitted,
    StreamNotFinalized,
    StreamNotFound,
)
from transforms.model.errors import GuaranteeError


class BigQueryStreams:
    """The write streams of one bundle or of the driver; see contract/write_streams.py.

    Used by one thread, but that several may create and finalize streams at the same time. Names of
    streams are resource names.
    """

    def __init__(self, clients: Clients, settings: BigQuerySettings) -> None:
        self._clients = clients
        self._table_path = settings.table_path
        self._created: set[str] = set()
        self._connections: dict[str, AppendConnection] = {}
        self._most_open = MAX_CONNECTIONS
        self._channels = AppendChannels(lambda: self._clients.new_channel(), MAX_CONNECTIONS)
        self._in_flight: deque[Append] = deque()
        self._bytes_in_flight = 0

    def create(self, table: str, kind: str = PENDING_STREAM) -> str:
        """A new stream; if the answer is lost, an unused stream is left, which expires."""
        table_path = self._table_path(table)
        wanted = types.WriteStream(type_=types.WriteStream.Type[kind])
        found = patiently(
            f"a write stream into {table_path}",
            lambda: self._clients.write.create_write_stream(
                parent=table_path, write_stream=wanted, retry=None, timeout=ANSWER_SECONDS
            ),
        )
        if isinstance(found, Answer):
            raise GuaranteeError(
                f"BigQuery: no write stream into {table_path} ({found.text}). Does the table exist?"
            )
        self._created.add(found.name)
        return str(found.name)

    def send(self, stream: str, offset: int, rows: pa.RecordBatch) -> Append:
        """Sends rows, then settles the oldest appends while too many bytes are in flight.

        Their own `wait` returns or raises what became of them.
        """
        append = self._connection(stream).send(offset, rows)
        self._in_flight.append(append)
        self._bytes_in_flight += append.nbytes
        while self._in_flight and (
            self._in_flight[0].is_done or self._bytes_in_flight > MAX_BYTES_IN_FLIGHT
        ):
            oldest = self._in_flight.popleft()
            self._bytes_in_flight -= oldest.nbytes
            oldest.settle()
        return append

    def make_room(self, streams: int) -> None:
        self._most_open = max(self._most_open, streams)

    def finalize(self, stream: str) -> int:
        if stream in self._connections:
            # A bundle that has failed may have left appends in flight: the number of rows tells
            # what became of them.
            self._connections.pop(stream).give_up(
                "an append was in flight when this process finalized the stream"
            )
        found = patiently(
            f"finalizing write stream {stream}",
            lambda: self._clients.write.finalize_write_stream(
                name=stream, retry=None, timeout=ANSWER_SECONDS
            ),
        )
        if isinstance(found, Answer):
            if found.meaning is Meaning.NOT_FOUND:
                raise StreamNotFound(stream, found.text)
            raise GuaranteeError(f"write stream {stream} cannot be finalized ({found.text}).")
        return int(found.row_count)

    def commit(self, table: str, streams: list[str]) -> None:
        table_path = self._table_path(table)
        if foreign := [
            stream for stream in streams if not stream.startswith(f"{table_path}/streams/")
        ]:
            raise ValueError(
                f"stream {foreign[0]} is not one of {table_path}; only its PENDING streams can be"
                " committed to it"
            )
        if len(streams) > STREAMS_PER_COMMIT:
            raise ValueError(
                f"{len(streams)} streams in one commit; BigQuery takes {STREAMS_PER_COMMIT}"
            )
        found = patiently(
            f"committing {len(streams)} write streams to {table_path}",
            lambda: self._clients.write.batch_commit_write_streams(
                types.BatchCommitWriteStreamsRequest(parent=table_path, write_streams=streams),
                retry=None,
                timeout=ANSWER_SECONDS,
            ),
        )
        if not isinstance(found, Answer):
            if not found.stream_errors and found.commit_time:
                return
            found = of_commit([types.StorageError.pb(error) for error in found.stream_errors])
        named = streams[0] if len(streams) == 1 else f"{streams[0]} (one of {len(streams)})"
        if found.meaning is Meaning.ALREADY_COMMITTED:
            raise StreamAlreadyCommitted(named, found.text)
        if (
            found.meaning is Meaning.NOT_FOUND
            and found.in_detail
            and (missing := self._first_missing(streams))
        ):
            raise StreamNotFound(missing, found.text)
        if found.meaning is Meaning.NOT_FINALIZED:
            raise StreamNotFinalized(named, found.text)
        if found.meaning is Meaning.WRONG_KIND:
            raise ValueError(
                f"{named}: only PENDING streams of {table_path} can be committed to it"
                f" ({found.text})"
            )
        raise GuaranteeError(
            f"BigQuery: the commit of {named} to {table_path} failed ({found.text}). The next run"
            " finishes it."
        )

    def discard(self, keep: Collection[str]) -> int:
        """Does nothing: BigQuery lists no streams, and drops those not committed in time."""
        return 0

    def forget(self, streams: Collection[str]) -> None:
        """Does nothing: BigQuery drops its streams by itself."""

    def forget_closed(self) -> None:
        """Does nothing, as `forget`."""

    def _first_missing(self, streams: list[str]) -> str | None:
        """The first of the streams that BigQuery says again does not exist.

        A run that takes streams for expired writes their rows again, so one answer is not enough.
        """
        for stream in streams:
            look = partial(
                self._clients.write.get_write_stream,
                name=stream,
                retry=None,
                timeout=ANSWER_SECONDS,
            )
            found = patiently(f"looking for write stream {stream}", look)
            if isinstance(found, Answer) and found.meaning is Meaning.NOT_FOUND:
                return stream
        return None

    def _connection(self, stream: str) -> AppendConnection:
        """The stream's connection, opened again if it was closed to make room."""
        if stream not in self._connections:
            self._connections[stream] = AppendConnection(
                self._channels.open, stream, stream in self._created
            )
        connection = self._connections[stream]
        if not connection.is_open:
            open_ones = [other for other in self._connections.values() if other.is_open]
            for oldest in open_ones[: max(0, len(open_ones) - self._most_open + 1)]:
                oldest.settle()
                oldest.close()
        self._connections[stream] = self._connections.pop(
            stream
        )  # the order is that of the last use
        return connection

    def close(self) -> None:
        """Ends all connections; appends in flight stay without an acknowledgement."""
        for connection in self._connections.values():
            connection.close()
        self._connections = {}
        self._channels.close()
        self._in_flight.clear()
        self._bytes_in_flight = 0
