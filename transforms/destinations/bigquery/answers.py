"""What each answer of the Storage Write API means: one table, with the reason for each decision.

A StorageError in the details decides. Where the service leaves the details out, the gRPC code
decides, and a code that may mean several things stops: an unknown answer is never taken for
success. Source:
https://cloud.google.com/bigquery/docs/reference/storage/rpc/google.cloud.bigquery.storage.v1#storageerror
and, for what may be tried again, https://cloud.google.com/bigquery/docs/write-api#error_handling.

What the user reads of rows that were refused: rows.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import grpc
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.bigquery_storage_v1 import types
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

_StorageCode: Final = types.StorageError.StorageErrorCode
_STORAGE_ERROR: Final = types.StorageError.pb()


class Meaning(Enum):
    """The meaning of an answer; only OK says that rows are there."""

    OK = "done"
    TRY_AGAIN = "passing: the same call again, on a new connection, may succeed"
    SLOW_DOWN = "a quota is used up for a while"
    SCHEMA_IS_OLD = (
        "the service does not see a new column yet: a new connection will, after minutes"
    )
    ALREADY_EXISTS = "the offset lies before the end of the stream"
    OUT_OF_RANGE = "an earlier append is missing"
    FINALIZED = "the stream takes no more rows"
    NOT_FOUND = "there is no such stream, or it has expired"
    NO_TABLE = "there is no such table"
    NOT_FINALIZED = "the stream has to be finalized first"
    ALREADY_COMMITTED = "the stream is visible already"
    WRONG_KIND = "the stream is of another kind, or of another table"
    ROWS_REFUSED = "rows do not fit the table: nothing of the append was written"
    DENIED = "a role is missing"
    STOP = "no known way to go on"


# STORAGE_ERROR_CODE_UNSPECIFIED and the codes of customer-managed keys are not here: they fall
# through to STOP.
_BY_STORAGE_CODE: Final = {
    # Dropped during the write. A retry is of no use, and the table is not created again unasked.
    _StorageCode.TABLE_NOT_FOUND: Meaning.NO_TABLE,
    # Success for a retried commit of a fixed group only.
    _StorageCode.STREAM_ALREADY_COMMITTED: Meaning.ALREADY_COMMITTED,
    # Expired: whether its rows are visible has to be asked of the table.
    _StorageCode.STREAM_NOT_FOUND: Meaning.NOT_FOUND,
    # A mistake of the pipeline.
    _StorageCode.INVALID_STREAM_TYPE: Meaning.WRONG_KIND,
    # Of a commit; nothing was committed.
    _StorageCode.INVALID_STREAM_STATE: Meaning.NOT_FINALIZED,
    # Of an append: this writer is the zombie.
    _StorageCode.STREAM_FINALIZED: Meaning.FINALIZED,
    # Writers notice a new column after minutes.
    _StorageCode.SCHEMA_MISMATCH_EXTRA_FIELDS: Meaning.SCHEMA_IS_OLD,
    # It does not say that the same rows are there.
    _StorageCode.OFFSET_ALREADY_EXISTS: Meaning.ALREADY_EXISTS,
    # Sent again from the first append that is not acknowledged, a few times.
    _StorageCode.OFFSET_OUT_OF_RANGE: Meaning.OUT_OF_RANGE,
}

# Codes that are not here mean STOP. FAILED_PRECONDITION and INVALID_ARGUMENT are among them:
# without details they may say that the stream is finalized, that rows do not fit or that the
# request is malformed.
_BY_CODE: Final = {
    code_pb2.OK: Meaning.OK,
    code_pb2.ALREADY_EXISTS: Meaning.ALREADY_EXISTS,
    code_pb2.OUT_OF_RANGE: Meaning.OUT_OF_RANGE,
    code_pb2.NOT_FOUND: Meaning.NOT_FOUND,
    # The connection broke, or the service restarts.
    code_pb2.UNAVAILABLE: Meaning.TRY_AGAIN,
    # The service asks for a new connection, as it does now and then.
    code_pb2.ABORTED: Meaning.TRY_AGAIN,
    code_pb2.INTERNAL: Meaning.TRY_AGAIN,
    # Also the pipeline's own cancel of a connection that does not answer.
    code_pb2.CANCELLED: Meaning.TRY_AGAIN,
    # The call may have had its effect: at the next try the offset, or the name, shows it.
    code_pb2.DEADLINE_EXCEEDED: Meaning.TRY_AGAIN,
    # What a proxy answers in place of the service.
    code_pb2.UNKNOWN: Meaning.TRY_AGAIN,
    code_pb2.RESOURCE_EXHAUSTED: Meaning.SLOW_DOWN,
    code_pb2.PERMISSION_DENIED: Meaning.DENIED,
    code_pb2.UNAUTHENTICATED: Meaning.DENIED,
}

RETRIED: Final = (Meaning.TRY_AGAIN, Meaning.SLOW_DOWN, Meaning.SCHEMA_IS_OLD)


@dataclass(frozen=True)
class Answer:
    """One answer of the service, with its meaning.

    row_errors: (index in the append, message) of the rows that were refused. in_detail: the meaning
    comes from a StorageError, not from a bare code.
    """

    meaning: Meaning
    text: str
    row_errors: tuple[tuple[int, str], ...] = ()
    in_detail: bool = False


def of_response(response: Any) -> Answer:
    """The answer of one AppendRowsResponse.

    An error travels inside the response, and the connection stays open.
    """
    if response.WhichOneof("response") == "append_result":
        return Answer(Meaning.OK, "")
    rows = tuple((row.index, row.message) for row in response.row_errors)
    if rows:
        return Answer(Meaning.ROWS_REFUSED, response.error.message, rows)
    if response.error.code == code_pb2.OK:
        return Answer(Meaning.STOP, "an answer that is neither a result nor an error")
    return of_status(response.error)


def of_error(error: grpc.RpcError | GoogleAPICallError) -> Answer:
    """The answer of an exception; the details travel in the trailing metadata."""
    call = error.errors[0] if isinstance(error, GoogleAPICallError) and error.errors else error
    try:
        status = rpc_status.from_call(call) if isinstance(call, grpc.Call) else None
    except ValueError:
        # The trailer and the status disagree, as behind some proxies: the code alone is left.
        status = None
    if status is not None:
        return of_status(status)
    code = call.code() if isinstance(call, grpc.Call) else getattr(error, "grpc_status_code", None)
    if code is None:
        return Answer(Meaning.STOP, str(error))
    details = call.details() if isinstance(call, grpc.Call) else str(error)
    return Answer(_BY_CODE.get(code.value[0], Meaning.STOP), f"{code.name}: {details}")


def of_status(status: status_pb2.Status) -> Answer:
    """The answer of a google.rpc.Status, with or without a StorageError in its details."""
    for detail in status.details:
        if detail.Is(_STORAGE_ERROR.DESCRIPTOR):
            found = _STORAGE_ERROR()
            detail.Unpack(found)
            return of_storage_error(found, status)
    return Answer(
        _BY_CODE.get(status.code, Meaning.STOP),
        f"{code_pb2.Code.Name(status.code)}: {status.message}",
    )


def of_storage_error(found: Any, status: status_pb2.Status | None = None) -> Answer:
    """The answer of a StorageError.

    An unknown code is judged by the status around it, and never as OK.
    """
    code = found.code if found.code in _StorageCode._value2member_map_ else 0
    meaning = _BY_STORAGE_CODE.get(_StorageCode(code))
    if meaning is None:
        meaning = _BY_CODE.get(status.code, Meaning.STOP) if status is not None else Meaning.STOP
        meaning = Meaning.STOP if meaning is Meaning.OK else meaning
    return Answer(meaning, f"{_StorageCode(code).name}: {found.error_message}", in_detail=True)


def of_commit(errors: Sequence[Any]) -> Answer:
    """The answer of the stream errors of one BatchCommitWriteStreamsResponse.

    The group was committed as a whole, now or earlier, or not at all. One stream that is committed
    already proves it for all of them, because groups are fixed in the run record; other streams of
    the group may have expired since.
    """
    answers = [of_storage_error(error) for error in errors]
    for meaning in (
        Meaning.ALREADY_COMMITTED,
        Meaning.NOT_FOUND,
        Meaning.NOT_FINALIZED,
        Meaning.WRONG_KIND,
        Meaning.NO_TABLE,
    ):
        for answer in answers:
            if answer.meaning is meaning:
                return answer
    return Answer(Meaning.STOP, "; ".join(answer.text for answer in answers))
