"""Write streams, as BigQuery's Storage Write API has them: the contract of every row.

Create a stream, append batches at given offsets, finalize, commit. What each call promises, and
what its errors prove, is written here once; `tests/unit/destinations/contract/write_streams.py`
states it as tests that every destination passes. Source:
https://cloud.google.com/bigquery/docs/write-api and
`google.cloud.bigquery.storage.v1.BigQueryWrite`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Protocol

import pyarrow as pa

PENDING_STREAM: Final = "PENDING"
"""Rows become visible when the finalized stream is committed: bounded runs."""

COMMITTED_STREAM: Final = "COMMITTED"
"""Rows are visible when their append is acknowledged: streaming."""


STREAMS_PER_COMMIT: Final = 10_000
"""Streams in one commit, all of one table.

What BigQuery takes (https://cloud.google.com/bigquery/quotas#write-api-limits).
"""


class StreamError(RuntimeError):
    """An answer of the destination about one write stream."""

    def __init__(self, stream: str, detail: str) -> None:
        super().__init__(f"write stream {stream}: {detail}")
        self.stream = stream
        self.detail = detail

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return (type(self), (self.stream, self.detail))


class OffsetAlreadyExists(StreamError):
    """The offset lies before the end of the stream.

    It does not say that the same rows are there.
    """


class DifferentRows(OffsetAlreadyExists):
    """The offset lies before the end of the stream, and other rows were written there."""


class OffsetOutOfRange(StreamError):
    """The offset lies behind the end of the stream: an earlier append is missing."""


class StreamFinalized(StreamError):
    """The stream takes no more rows: another process finalized it, so this writer is a zombie."""


class StreamNotFound(StreamError):
    """There is no such stream (any more)."""


class StreamNotFinalized(StreamError):
    """Commit of a stream that was not finalized."""


class StreamAlreadyCommitted(StreamError):
    """The stream is committed already: for a retried commit of a fixed group this is success."""


class Acknowledgement(Protocol):
    """An append that is in flight."""

    def wait(self) -> int:
        """The offset behind the rows, once they are durable.

        Raises what the append was refused with; see WriteStreams.send.
        """


class WriteStreams(Protocol):
    """Write streams of one destination.

    Calls may come from several threads, one thread per stream.
    """

    def create(self, table: str, kind: str = PENDING_STREAM) -> str:
        """A new, empty stream into `table`, PENDING_STREAM or COMMITTED_STREAM.

        Its name is unique for ever.
        """

    def send(self, stream: str, offset: int, rows: pa.RecordBatch) -> Acknowledgement:
        """Adds `rows` at `offset` of the stream.

        Several appends may be in flight, in the order of their offsets; none counts before its
        `wait`.

        Rows are durable when the append is acknowledged; visible then in a COMMITTED stream, after
        the commit in a PENDING one. `send` or `wait` raises OffsetAlreadyExists (DifferentRows
        where the destination can tell), OffsetOutOfRange, StreamFinalized, StreamNotFound; then
        nothing was written by this append.
        """

    def make_room(self, streams: int) -> None:
        """So many streams are appended to in turn, by every bundle, for a long time.

        Without it a destination may close what it holds open for one stream in favour of another,
        which costs a new connection with each turn.
        """

    def finalize(self, stream: str) -> int:
        """Closes the stream for appends and returns its number of rows.

        Idempotent. Raises StreamNotFound.
        """

    def commit(self, table: str, streams: list[str]) -> None:
        """Makes all rows of all PENDING `streams` visible in `table` at once, or none.

        Raises StreamNotFound, StreamNotFinalized, StreamAlreadyCommitted, or ValueError for streams
        of another table or kind; then nothing was committed by this call. Groups are fixed in the
        run record, so StreamAlreadyCommitted on one stream means that the whole group is.
        """

    def discard(self, keep: Collection[str]) -> int:
        """Removes PENDING streams that are neither committed nor in `keep`, with their rows.

        Returns how many. May do nothing where such streams expire by themselves.
        """

    def forget(self, streams: Collection[str]) -> None:
        """Removes what is kept of those of the streams that are closed; no row goes with it.

        Closed: committed PENDING ones, and finalized COMMITTED ones. May do nothing where streams
        expire by themselves.
        """

    def forget_closed(self) -> None:
        """The same for all closed streams, but for those that somebody may ask for again.

        A record that is PREPARED names its streams: whoever finishes it is to learn that they are
        committed. So does an epoch of the shard ledger that no recovery has closed: its rows are
        counted by them.
        """
