"""Each answer of the Storage Write API, judged on its own.

With its details, with the details missing, and as an exception.
"""

import grpc
import pytest
from google.api_core import exceptions
from google.cloud.bigquery_storage_v1 import types
from google.protobuf import any_pb2
from google.rpc import code_pb2, status_pb2

from transforms.destinations.bigquery import retry as bigquery_retry
from transforms.destinations.bigquery.answers import (
    RETRIED,
    Answer,
    Meaning,
    of_commit,
    of_error,
    of_response,
    of_status,
)
from transforms.destinations.bigquery.retry import (
    OUT_OF_RANGE_TRIES,
    RetryPolicy,
    patiently,
    raise_if_final,
)
from transforms.model.errors import GuaranteeError

Code = types.StorageError.StorageErrorCode
STORAGE_ERROR = types.StorageError.pb()
RESPONSE = types.AppendRowsResponse.pb()


def status(code: int, storage_code: Code | None = None) -> status_pb2.Status:
    found = status_pb2.Status(code=code, message="as answered")
    if storage_code is not None:
        packed = any_pb2.Any()
        packed.Pack(STORAGE_ERROR(code=int(storage_code), error_message="as answered"))
        found.details.append(packed)
    return found


WITH_DETAILS = [
    (Code.OFFSET_ALREADY_EXISTS, code_pb2.ALREADY_EXISTS, Meaning.ALREADY_EXISTS),
    (Code.OFFSET_OUT_OF_RANGE, code_pb2.OUT_OF_RANGE, Meaning.OUT_OF_RANGE),
    (Code.STREAM_FINALIZED, code_pb2.INVALID_ARGUMENT, Meaning.FINALIZED),
    (Code.STREAM_FINALIZED, code_pb2.FAILED_PRECONDITION, Meaning.FINALIZED),
    (Code.STREAM_NOT_FOUND, code_pb2.NOT_FOUND, Meaning.NOT_FOUND),
    (Code.TABLE_NOT_FOUND, code_pb2.NOT_FOUND, Meaning.NO_TABLE),
    (Code.INVALID_STREAM_STATE, code_pb2.FAILED_PRECONDITION, Meaning.NOT_FINALIZED),
    (Code.INVALID_STREAM_TYPE, code_pb2.INVALID_ARGUMENT, Meaning.WRONG_KIND),
    (Code.STREAM_ALREADY_COMMITTED, code_pb2.ALREADY_EXISTS, Meaning.ALREADY_COMMITTED),
    (Code.SCHEMA_MISMATCH_EXTRA_FIELDS, code_pb2.INVALID_ARGUMENT, Meaning.SCHEMA_IS_OLD),
    (Code.CMEK_NOT_PROVIDED, code_pb2.FAILED_PRECONDITION, Meaning.STOP),
    (Code.KMS_PERMISSION_DENIED, code_pb2.PERMISSION_DENIED, Meaning.DENIED),
    (Code.STORAGE_ERROR_CODE_UNSPECIFIED, code_pb2.UNAVAILABLE, Meaning.TRY_AGAIN),
    (Code.STORAGE_ERROR_CODE_UNSPECIFIED, code_pb2.OK, Meaning.STOP),
]
WITHOUT_DETAILS = [
    (code_pb2.ALREADY_EXISTS, Meaning.ALREADY_EXISTS),
    (code_pb2.OUT_OF_RANGE, Meaning.OUT_OF_RANGE),
    (code_pb2.NOT_FOUND, Meaning.NOT_FOUND),
    (code_pb2.RESOURCE_EXHAUSTED, Meaning.SLOW_DOWN),
    (code_pb2.UNAVAILABLE, Meaning.TRY_AGAIN),
    (code_pb2.ABORTED, Meaning.TRY_AGAIN),
    (code_pb2.INTERNAL, Meaning.TRY_AGAIN),
    (code_pb2.CANCELLED, Meaning.TRY_AGAIN),
    (code_pb2.DEADLINE_EXCEEDED, Meaning.TRY_AGAIN),
    (code_pb2.UNKNOWN, Meaning.TRY_AGAIN),
    (code_pb2.PERMISSION_DENIED, Meaning.DENIED),
    (code_pb2.UNAUTHENTICATED, Meaning.DENIED),
    # These say too little without details: never success, never a retry.
    (code_pb2.INVALID_ARGUMENT, Meaning.STOP),
    (code_pb2.FAILED_PRECONDITION, Meaning.STOP),
    (code_pb2.DATA_LOSS, Meaning.STOP),
    (code_pb2.UNIMPLEMENTED, Meaning.STOP),
]


@pytest.mark.parametrize("storage_code,code,meaning", WITH_DETAILS)
def test_the_storage_error_decides(storage_code: Code, code: int, meaning: Meaning) -> None:
    assert of_status(status(code, storage_code)).meaning is meaning


@pytest.mark.parametrize("code,meaning", WITHOUT_DETAILS)
def test_without_details_the_code_decides(code: int, meaning: Meaning) -> None:
    assert of_status(status(code)).meaning is meaning
    assert of_response(RESPONSE(error=status(code))).meaning is meaning


def test_a_storage_error_that_is_newer_than_this_code_stops() -> None:
    assert of_commit([STORAGE_ERROR(code=99, error_message="new")]).meaning is Meaning.STOP


def test_only_a_result_is_success() -> None:
    assert of_response(RESPONSE(append_result={"offset": {"value": 3}})).meaning is Meaning.OK
    assert of_response(RESPONSE(append_result={})).meaning is Meaning.OK, (
        "that the offset is missing is found when it is compared"
    )
    assert of_response(RESPONSE()).meaning is Meaning.STOP


def test_row_errors_name_the_rows_whatever_the_code_around_them() -> None:
    for error in (status(code_pb2.INVALID_ARGUMENT), None):
        response = RESPONSE(error=error, row_errors=[{"index": 7, "message": "amount: too large"}])
        assert of_response(response) == Answer(
            Meaning.ROWS_REFUSED, "as answered" if error else "", ((7, "amount: too large"),)
        )


@pytest.mark.parametrize(
    "errors,meaning",
    [
        ([Code.STREAM_ALREADY_COMMITTED], Meaning.ALREADY_COMMITTED),
        ([Code.STREAM_NOT_FOUND, Code.STREAM_ALREADY_COMMITTED], Meaning.ALREADY_COMMITTED),
        ([Code.INVALID_STREAM_STATE, Code.STREAM_NOT_FOUND], Meaning.NOT_FOUND),
        ([Code.INVALID_STREAM_STATE], Meaning.NOT_FINALIZED),
        ([Code.INVALID_STREAM_TYPE], Meaning.WRONG_KIND),
        ([Code.KMS_SERVICE_ERROR], Meaning.STOP),
        ([], Meaning.STOP),
    ],
)
def test_a_commit_is_judged_by_the_errors_of_its_streams(
    errors: list[Code], meaning: Meaning
) -> None:
    assert of_commit([STORAGE_ERROR(code=int(code)) for code in errors]).meaning is meaning


def test_an_exception_of_the_library_is_judged_like_a_status() -> None:
    assert of_error(exceptions.NotFound("gone", errors=[])).meaning is Meaning.NOT_FOUND
    assert of_error(exceptions.ServiceUnavailable("away", errors=[])).meaning is Meaning.TRY_AGAIN
    assert of_error(exceptions.PermissionDenied("no", errors=[])).meaning is Meaning.DENIED
    assert of_error(exceptions.GoogleAPICallError("what?")).meaning is Meaning.STOP


class ManualTime:
    """clock and sleep for RetryPolicy."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def retry_policy(self) -> RetryPolicy:
        return RetryPolicy(clock=lambda: self.now, sleep=self.sleep)


@pytest.mark.parametrize(
    "meaning", [meaning for meaning in Meaning if meaning not in (*RETRIED, Meaning.OUT_OF_RANGE)]
)
def test_what_cannot_succeed_is_never_tried_again(meaning: Meaning) -> None:
    time = ManualTime()
    assert not time.retry_policy().allows(Answer(meaning, ""))
    assert time.slept == []


@pytest.mark.parametrize("meaning", RETRIED)
def test_what_passes_is_tried_until_the_deadline_and_then_reported(meaning: Meaning) -> None:
    time = ManualTime()
    retry_policy, tries = time.retry_policy(), 0
    while retry_policy.allows(Answer(meaning, "")):
        tries += 1
        assert tries < 1000
    assert tries > 10
    assert time.now <= bigquery_retry.DEADLINE_SECONDS
    assert max(time.slept) <= bigquery_retry.LONGEST_DELAY_SECONDS * 1.5
    with pytest.raises(GuaranteeError, match="did not succeed within 600 s"):
        raise_if_final("the call", Answer(meaning, ""))


def test_a_missing_predecessor_is_waited_for_a_few_times() -> None:
    retry_policy = ManualTime().retry_policy()
    allowed = [
        retry_policy.allows(Answer(Meaning.OUT_OF_RANGE, "")) for _ in range(OUT_OF_RANGE_TRIES + 1)
    ]
    assert allowed == [True] * OUT_OF_RANGE_TRIES + [False]


def test_a_missing_role_is_named() -> None:
    def denied() -> None:
        raise exceptions.PermissionDenied("no")

    with pytest.raises(GuaranteeError, match=r"refuses the stream .*roles/bigquery\.dataEditor"):
        patiently("the stream", denied)


def test_a_call_that_recovers_gives_its_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery_retry, "FIRST_DELAY_SECONDS", 0.0)
    answers = iter([exceptions.ServiceUnavailable("away"), exceptions.Aborted("again"), 5])

    def call() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently("the call", call) == 5


def test_a_broken_connection_without_a_code_stops() -> None:
    assert of_error(grpc.RpcError()).meaning is Meaning.STOP
