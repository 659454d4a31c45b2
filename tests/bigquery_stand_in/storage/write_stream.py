"""One write stream: its state, its lifetime and the rule of offsets. No gRPC, no table."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import datetime

import grpc
import numpy as np
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types
from numpy.typing import NDArray

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.errors import StorageErrorCode, StorageFailure

StreamType = types.WriteStream.Type


@dataclass
class WriteStream:
    """kind: PENDING, COMMITTED or BUFFERED. next_offset: rows accepted; flushed: rows visible
    (BUFFERED).

    waiting: rows that no query sees yet. fingerprints: a hash per row ever accepted, for the strict
    mode. connection: the one connection that may append (limits.WRITE_API_PRACTICES: "only a single
    active connection on application-created streams"). The service does not say which of two wins;
    here the newer, because a client must get on after a broken connection.
    """

    name: str
    table: tuple[str, str]
    kind: StreamType
    created: datetime
    last_append: datetime
    finalized: datetime | None = None
    committed: datetime | None = None
    next_offset: int = 0
    flushed: int = 0
    waiting: list[pa.RecordBatch] = field(default_factory=list)
    fingerprints: list[NDArray[np.uint64]] = field(default_factory=list)
    connection: object | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)

    def is_gone(self, now: datetime) -> bool:
        """Whether the service has forgotten the stream (limits.WRITE_API). A committed stream is
        remembered: see `forget_stream`.
        """
        if self.kind == StreamType.COMMITTED:
            return now - self.last_append > limits.COMMITTED_IDLE
        if self.kind == StreamType.BUFFERED:
            return now - self.last_append > limits.BUFFERED_IDLE
        if self.committed is not None:
            return False
        if self.finalized is not None:
            return now - self.finalized > limits.PENDING_UNTIL_COMMITTED
        return now - self.created > limits.PENDING_UNTIL_FINALIZED

    def check_append(self, offset: int | None) -> None:
        """The rule of offsets (limits.WRITE_API_RPC, AppendRowsRequest.offset). A finalized stream
        answers that it is finalized, for every offset.
        """
        if self.finalized is not None:
            raise self.failure(
                grpc.StatusCode.INVALID_ARGUMENT,
                StorageErrorCode.STREAM_FINALIZED,
                "Stream is finalized",
            )
        if offset is None or offset == self.next_offset:
            return
        expected = f"expected offset {self.next_offset}, received {offset}"
        if offset < self.next_offset:
            raise self.failure(
                grpc.StatusCode.ALREADY_EXISTS,
                StorageErrorCode.OFFSET_ALREADY_EXISTS,
                f"The offset is within stream, {expected}",
            )
        raise self.failure(
            grpc.StatusCode.OUT_OF_RANGE,
            StorageErrorCode.OFFSET_OUT_OF_RANGE,
            f"The offset is beyond stream, {expected}",
        )

    def differs(self, offset: int, rows: NDArray[np.uint64]) -> bool:
        """Strict mode: whether other rows than these were accepted at a known offset."""
        known = (
            np.concatenate(self.fingerprints)[offset : offset + len(rows)]
            if self.fingerprints
            else rows[:0]
        )
        return not np.array_equal(known, rows[: len(known)])

    def accept(self, rows: int, fingerprints: NDArray[np.uint64] | None, now: datetime) -> int:
        """The append has happened; returns the offset at which it did."""
        offset = self.next_offset
        self.next_offset += rows
        self.last_append = now
        if fingerprints is not None:
            self.fingerprints.append(fingerprints)
        return offset

    def failure(
        self, code: grpc.StatusCode, storage_code: StorageErrorCode, message: str
    ) -> StorageFailure:
        return StorageFailure(
            code, f"{message}. Entity: {self.name}", storage_code=storage_code, entity=self.name
        )
