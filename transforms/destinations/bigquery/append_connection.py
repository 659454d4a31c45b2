"""One AppendRows connection: the appends of one write stream.

Several are in flight, acknowledged in order, and sent again when the connection breaks.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, Final

import grpc
import pyarrow as pa
from google.cloud.bigquery_storage_v1 import types

from transforms import metrics
from transforms.destinations.bigquery.answers import Answer, Meaning, of_error, of_response
from transforms.destinations.bigquery.append_refused import refused, too_large
from transforms.destinations.bigquery.connection_ended import ConnectionEnded
from transforms.destinations.bigquery.limits import ANSWER_SECONDS, MAX_ROW_BYTES
from transforms.destinations.bigquery.retry import RetryPolicy
from transforms.destinations.bigquery.rows import serialize_rows, serialize_schema
from transforms.destinations.contract.write_streams import StreamError
from transforms.model.errors import GuaranteeError
from transforms.model.waiting import waiting_for

Call = Callable[..., Any]
"""AppendRows as a callable of the gRPC channel: (request iterator, metadata) -> responses."""

_REQUEST: Final = types.AppendRowsRequest.pb()


def append_rows_of(channel: grpc.Channel) -> Call:
    """The RPC, without the copy of every message that the library's client makes."""
    call: Call = channel.stream_stream(
        "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows",
        request_serializer=_REQUEST.SerializeToString,
        response_deserializer=types.AppendRowsResponse.pb().FromString,
    )
    return call


class Append:
    """Rows in flight: an Acknowledgement, see contract/write_streams.py."""

    def __init__(self, connection: AppendConnection, offset: int, rows: pa.RecordBatch) -> None:
        self.offset = offset
        self.rows = rows
        self.serialized = serialize_rows(rows)
        self.sends = 0
        self.error: Exception | None = None
        self.is_done = False
        self._connection = connection

    @property
    def nbytes(self) -> int:
        return int(self.rows.nbytes)

    def settle(self) -> None:
        """Blocks until the append is acknowledged or refused."""
        if not self.is_done:
            self._connection.settle(self)

    def wait(self) -> int:
        self.settle()
        if self.error is not None:
            raise self.error
        return int(self.offset + self.rows.num_rows)


class AppendConnection:
    """The connection of one write stream, used by one thread.

    The service answers in the order of the requests, so each answer is about the append that has
    waited longest.

    created_here: the stream was created by this very attempt, and no other process can have written
    to it. Then OFFSET_ALREADY_EXISTS for an append that was sent before is its lost
    acknowledgement. In other streams `wait` raises it, and the caller has to prove which rows are
    there. Either way later appends go on.
    """

    def __init__(
        self,
        append_rows: Call,
        stream: str,
        created_here: bool,
        new_retry_policy: Callable[[], RetryPolicy] = RetryPolicy,
    ) -> None:
        self._append_rows = append_rows
        self._stream = stream
        self._created_here = created_here
        self._new_retry_policy = new_retry_policy
        self._retry_policy: RetryPolicy | None = None
        self._last_failure: str | None = None
        self._waiting: deque[Append] = deque()
        self._call: Any = None
        self._requests: SimpleQueue[Any] = SimpleQueue()

    @property
    def is_open(self) -> bool:
        return self._call is not None

    def settle(self, wanted: Append | None = None) -> None:
        """Blocks until `wanted` is answered; None: until nothing is in flight."""
        what = f"BigQuery to answer an append to write stream {self._stream}"
        with waiting_for(what, lambda: self._last_failure):
            while not wanted.is_done if wanted else self._waiting:
                self.read_answer()

    def send(self, offset: int, rows: pa.RecordBatch) -> Append:
        """Sends rows. Raises RowsRefused for a row that is too large for a request."""
        append = Append(self, offset, rows)
        if len(append.serialized) > MAX_ROW_BYTES:
            raise too_large(rows, len(append.serialized))
        self._waiting.append(append)
        if self._call is None:
            self._open()
        else:
            self._put(append, with_schema=False)
        return append

    def close(self) -> None:
        """Ends the connection. Appends that are not acknowledged stay in flight."""
        if self._call is not None:
            self._requests.put(None)
            self._call.cancel()
            self._call = None

    def give_up(self, why: str) -> None:
        """Ends the connection for good: `wait` of every append in flight raises StreamError.

        Whether their rows were written stays unknown.
        """
        self._end(StreamError(self._stream, why))

    def read_answer(self) -> None:
        """Takes one answer, about the append that has waited longest.

        When the connection breaks, everything in flight is sent again on a new one.
        """
        head = self._waiting[0]
        try:
            response = self._next()
            answer = of_response(response)
        except grpc.RpcError as error:
            response, answer = None, of_error(error)
        if answer.meaning is Meaning.OK:
            if self._answers(response, head):
                self._settled()
        elif answer.meaning is Meaning.ALREADY_EXISTS:
            is_lost_acknowledgement = self._created_here and head.sends > 1
            if not is_lost_acknowledgement:
                head.error = refused(self._stream, head.offset, head.rows, answer)
            self._settled()
            # An error names no offset. On a new connection no earlier error can be left over that
            # would be taken for the next append's. And a connection that the error has ended would
            # give the same answer for ever.
            if is_lost_acknowledgement or response is None:
                self._go_on()
        elif self._may_try_again(answer):
            self._open()
        else:
            self._failed(head, answer)

    def _answers(self, response: Any, head: Append) -> bool:
        """Whether the answer is about the head.

        False for an answer that was given twice. Raises GuaranteeError for any other offset: the
        service is broken.
        """
        offset = (
            response.append_result.offset.value
            if response.append_result.HasField("offset")
            else None
        )
        if offset is not None and offset < head.offset:
            return False
        if offset != head.offset:
            self.close()
            raise GuaranteeError(
                f"write stream {self._stream}: BigQuery acknowledged stream offset {offset} where"
                f" {head.offset} was expected. Nothing of this run is"
                " visible; run again, and report this line if it repeats."
            )
        return True

    def _may_try_again(self, answer: Answer) -> bool:
        """Whether everything in flight may be sent again, after a pause.

        The deadline counts from the first failure since the last acknowledgement: before that
        failure the connection may have been idle for long.
        """
        if self._retry_policy is None:
            self._retry_policy = self._new_retry_policy()
        self._last_failure = answer.text
        if not self._retry_policy.allows(answer):
            return False
        metrics.count(metrics.APPEND_RETRIES, len(self._waiting))
        return True

    def _settled(self) -> None:
        self._waiting.popleft().is_done = True
        self._retry_policy = self._last_failure = None

    def _go_on(self) -> None:
        """Opens a new connection, if there is anything left to send."""
        self.close()
        if self._waiting:
            self._open()

    def _failed(self, head: Append, answer: Answer) -> None:
        """Fails all appends in flight: those after a failed one have wrong offsets too."""
        self._end(refused(self._stream, head.offset, head.rows, answer))

    def _end(self, error: Exception) -> None:
        self.close()
        for append in self._waiting:
            append.error, append.is_done = error, True
        self._waiting.clear()
        self._retry_policy = None

    def _open(self) -> None:
        self.close()
        self._requests = SimpleQueue()
        # The service routes a connection by this header
        # (https://google.aip.dev/client-libraries/4222).
        self._call = self._append_rows(
            _taken_from(self._requests),
            metadata=(("x-goog-request-params", f"write_stream={self._stream}"),),
        )
        for index, append in enumerate(self._waiting):
            self._put(append, with_schema=index == 0)

    def _put(self, append: Append, with_schema: bool) -> None:
        request = _REQUEST()
        if with_schema:
            request.write_stream = self._stream
            request.arrow_rows.writer_schema.serialized_schema = serialize_schema(
                append.rows.schema
            )
        request.offset.value = append.offset
        request.arrow_rows.rows.serialized_record_batch = append.serialized
        append.sends += 1
        self._requests.put(request)

    def _next(self) -> Any:
        """The next answer.

        Raises grpc.RpcError when the connection breaks, or no answer comes for too long.
        """
        call = self._call
        too_long = threading.Timer(ANSWER_SECONDS, call.cancel)
        too_long.daemon = True
        too_long.start()
        try:
            return next(call)
        except StopIteration:
            raise ConnectionEnded() from None
        finally:
            too_long.cancel()


def _taken_from(requests: SimpleQueue[Any]) -> Iterator[Any]:
    while (request := requests.get()) is not None:
        yield request
