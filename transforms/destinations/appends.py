"""Rows into one write stream: collected, cut, several appends in flight, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

from transforms.destinations.contract.write_streams import Acknowledgement, WriteStreams
from transforms.model.errors import GuaranteeError
from transforms.model.run_report import StreamWritten

APPEND_BYTES: Final = 2 << 20
"""Rows are collected up to this size before an append. BigQuery is efficient above 1 MB and refuses
requests above 20 MB (https://cloud.google.com/bigquery/docs/write-api-best-practices).
"""

MAX_APPEND_BYTES: Final = 8 << 20
"""No append is larger, unless one row is: BigQuery takes 20 MB, and has said 10 for years
(https://cloud.google.com/bigquery/quotas#write-api-limits).
"""

APPENDS_IN_FLIGHT: Final = 4
"""Per stream, before the next one waits for the first: enough to cover a round trip, and a bound to
what waits in memory.
"""


class TableWriter:
    """Appends one shard's rows for one table to a stream of its own, created with the first row."""

    def __init__(self, destination: WriteStreams, table: str) -> None:
        self._destination = destination
        self._table = table
        self._stream: str | None = None
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_bytes = 0
        self._rows = 0
        self._in_flight: deque[tuple[Acknowledgement, int]] = deque()

    def add(self, rows: pa.RecordBatch) -> None:
        self._waiting.append(rows)
        self._waiting_bytes += rows.nbytes
        if self._waiting_bytes >= APPEND_BYTES:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        if self._stream is None:
            self._stream = self._destination.create(self._table)
        for rows in cut(pa.concat_batches(self._waiting), MAX_APPEND_BYTES):
            behind = self._rows + rows.num_rows
            self._in_flight.append((self._destination.send(self._stream, self._rows, rows), behind))
            self._rows = behind
            if len(self._in_flight) > APPENDS_IN_FLIGHT:
                self._wait_for_the_first()
        self._waiting, self._waiting_bytes = [], 0

    def written(self) -> StreamWritten | None:
        """What is acknowledged, once all of it is."""
        while self._in_flight:
            self._wait_for_the_first()
        return StreamWritten(self._table, self._stream, self._rows) if self._stream else None

    def _wait_for_the_first(self) -> None:
        append, expected = self._in_flight.popleft()
        behind = append.wait()
        if behind != expected:
            raise GuaranteeError(
                f"write stream {self._stream}: the destination acknowledged stream offset {behind}"
                f" where {expected} was expected; nothing of"
                " this run is visible. Run again; if it repeats, report it with this line."
            )


def cut(rows: pa.RecordBatch, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """Pieces of at most so many bytes, in order; a single row may be larger."""
    if rows.nbytes <= most_bytes or rows.num_rows == 1:
        yield rows
        return
    half = rows.num_rows // 2
    yield from cut(rows.slice(0, half), most_bytes)
    yield from cut(rows.slice(half), most_bytes)
