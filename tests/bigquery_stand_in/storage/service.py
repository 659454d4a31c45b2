"""google.cloud.bigquery.storage.v1.BigQueryWrite as a gRPC service: messages, faults and statuses
around the write streams.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import grpc
from google.cloud.bigquery_storage_v1 import types
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_status import rpc_status

from tests.bigquery_stand_in.errors import StorageFailure
from tests.bigquery_stand_in.faults import Call, FaultPlan, Kind, Rule
from tests.bigquery_stand_in.fields import storage_schema
from tests.bigquery_stand_in.storage.append_connection import AppendConnection, refusal
from tests.bigquery_stand_in.storage.names import default_stream_table
from tests.bigquery_stand_in.storage.write_stream import StreamType, WriteStream
from tests.bigquery_stand_in.storage.write_streams import WriteStreams

SERVICE: Final = "google.cloud.bigquery.storage.v1.BigQueryWrite"

_FULL_VIEW: Final = int(types.WriteStreamView.FULL)
_WRITE_STREAM = types.WriteStream.pb()
_COMMIT_RESPONSE = types.BatchCommitWriteStreamsResponse.pb()


class StorageService:
    """new_connection: makes the state of an AppendRows connection. stopping: ends delays when the
    server stops.
    """

    def __init__(
        self,
        streams: WriteStreams,
        faults: FaultPlan,
        new_connection: Callable[[], AppendConnection],
        stopping: threading.Event,
    ) -> None:
        self._streams = streams
        self._faults = faults
        self._new_connection = new_connection
        self._stopping = stopping

    def handler(self) -> grpc.GenericRpcHandler:
        unary: dict[str, tuple[Any, Any, Callable[[Any], Any]]] = {
            "CreateWriteStream": (types.CreateWriteStreamRequest, types.WriteStream, self._create),
            "GetWriteStream": (types.GetWriteStreamRequest, types.WriteStream, self._get),
            "FinalizeWriteStream": (
                types.FinalizeWriteStreamRequest,
                types.FinalizeWriteStreamResponse,
                self._finalize,
            ),
            "BatchCommitWriteStreams": (
                types.BatchCommitWriteStreamsRequest,
                types.BatchCommitWriteStreamsResponse,
                self._commit,
            ),
            "FlushRows": (types.FlushRowsRequest, types.FlushRowsResponse, self._flush),
        }
        methods = {
            name: grpc.unary_unary_rpc_method_handler(
                self._unary(name, do), request.pb().FromString, response.pb().SerializeToString
            )
            for name, (request, response, do) in unary.items()
        }
        methods["AppendRows"] = grpc.stream_stream_rpc_method_handler(
            self._append_rows,
            types.AppendRowsRequest.pb().FromString,
            types.AppendRowsResponse.pb().SerializeToString,
        )
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    def _unary(
        self, name: str, do: Callable[[Any], Any]
    ) -> Callable[[Any, grpc.ServicerContext], Any]:
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            call, rules = self._faults.arrive(name, request)
            try:
                return self._with_faults(call, rules, lambda: do(request))
            except StorageFailure as failure:
                return _abort(context, failure, self._faults.error_style.details)

        return handle

    def _append_rows(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        connection = self._new_connection()
        try:
            call, rules = self._faults.arrive("AppendRows.connect", None)
            self._with_faults(call, rules, lambda: None)
            for request in requests:
                call, rules = self._faults.arrive("AppendRows", request)
                answer = self._append(connection, call, rules)
                yield answer
                if any(rule.kind is Kind.ANSWER_TWICE for rule in rules):
                    yield answer
        except StorageFailure as failure:
            _abort(context, failure, self._faults.error_style.details)
        finally:
            connection.close()

    def _append(self, connection: AppendConnection, call: Call, rules: list[Rule]) -> Any:
        """Raises StorageFailure when the connection has to end."""
        style = self._faults.error_style

        def append() -> Any:
            try:
                return connection.append(call.request)
            except StorageFailure as failure:
                if failure.ends_connection or (style.abort and not failure.row_errors):
                    raise
                return refusal(
                    failure, connection.stream_name or call.request.write_stream, style.details
                )

        try:
            return self._with_faults(call, rules, append)
        except _InjectedFailure as failure:
            if failure.rule.style.abort:
                raise
            return refusal(
                failure,
                connection.stream_name or call.request.write_stream,
                failure.rule.style.details,
            )

    def _with_faults(self, call: Call, rules: list[Rule], effect: Callable[[], Any]) -> Any:
        for rule in rules:
            if rule.kind is Kind.DELAY:
                self._stopping.wait(rule.seconds)
            elif rule.kind is Kind.HOOK:
                rule.function(call)
            elif rule.kind is Kind.FAIL:
                raise _InjectedFailure(rule, call)
            elif rule.kind is Kind.CUT:
                raise _broken_connection()
        try:
            answer = effect()
        finally:
            for rule in rules:
                if rule.kind is Kind.HOOK_AFTER:
                    rule.function(call)
                elif rule.kind is Kind.FAIL_AFTER:
                    raise _InjectedFailure(rule, call)
                elif rule.kind is Kind.LOSE_ANSWER:
                    raise _broken_connection()
        return answer

    def _create(self, request: Any) -> Any:
        stream = self._streams.create(request.parent, StreamType(request.write_stream.type_))
        return self._message(stream, with_schema=True)

    def _get(self, request: Any) -> Any:
        table = default_stream_table(request.name)
        if table is None:
            return self._message(
                self._streams.get(request.name), with_schema=request.view == _FULL_VIEW
            )
        fields = self._streams.table(table).fields
        return _WRITE_STREAM(
            name=f"{table}/streams/_default",
            type_=int(StreamType.COMMITTED),
            table_schema=storage_schema(fields),
        )

    def _finalize(self, request: Any) -> Any:
        return types.FinalizeWriteStreamResponse.pb()(
            row_count=self._streams.finalize(request.name)
        )

    def _flush(self, request: Any) -> Any:
        offset = request.offset.value if request.HasField("offset") else None
        return types.FlushRowsResponse.pb()(
            offset=self._streams.flush(request.write_stream, offset)
        )

    def _commit(self, request: Any) -> Any:
        committed, errors = self._streams.commit(request.parent, list(request.write_streams))
        return (
            _COMMIT_RESPONSE(stream_errors=errors)
            if committed is None
            else _COMMIT_RESPONSE(commit_time=_timestamp(committed))
        )

    def _message(self, stream: WriteStream, with_schema: bool) -> Any:
        message = _WRITE_STREAM(
            name=stream.name,
            type_=int(stream.kind),
            create_time=_timestamp(stream.created),
            location="US",
        )
        committed = stream.created if stream.kind == StreamType.COMMITTED else stream.committed
        if committed is not None:
            message.commit_time.CopyFrom(_timestamp(committed))
        if with_schema:
            message.table_schema.CopyFrom(
                storage_schema(self._streams.table(stream.name.partition("/streams/")[0]).fields)
            )
        return message


class _InjectedFailure(StorageFailure):
    def __init__(self, rule: Rule, call: Call) -> None:
        code = rule.code if isinstance(rule.code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN
        super().__init__(
            code, f"{rule.message} ({call.name} call {call.number})", storage_code=rule.storage_code
        )
        self.rule = rule


def _broken_connection() -> StorageFailure:
    """What a client of gRPC sees of a broken connection: UNAVAILABLE, made by its own transport."""
    return StorageFailure(
        grpc.StatusCode.UNAVAILABLE, "recvmsg: Connection reset by peer", ends_connection=True
    )


def _abort(context: grpc.ServicerContext, failure: StorageFailure, with_details: bool) -> Any:
    if isinstance(failure, _InjectedFailure):
        with_details = failure.rule.style.details
    status = failure.status(with_details)
    if status.details:
        context.abort_with_status(
            rpc_status.to_status(status)
        )  # in the trailer grpc-status-details-bin
    context.abort(failure.code, failure.message)


def _timestamp(moment: Any) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
