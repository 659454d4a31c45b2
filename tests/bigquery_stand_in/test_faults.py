"""The fault plan: each fault on gRPC and REST, and what is left behind."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import google.api_core.exceptions as api
import grpc
import pytest
import requests
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient

from tests.bigquery_stand_in import BigQueryStandIn, ErrorStyle
from tests.bigquery_stand_in.appending import (
    SECONDS,
    StorageErrorCode,
    append,
    append_request,
    send,
    storage_code,
)
from tests.bigquery_stand_in.calls import (
    commit,
    create,
    create_table,
    finalize,
    rows,
)
from tests.bigquery_stand_in.clients import rest_client

# Faults


def test_an_error_can_end_the_connection_with_the_details_in_the_trailer(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stand_in.faults.error_style = ErrorStyle(abort=True)
    with pytest.raises(api.OutOfRange) as refused:
        append(writer, create(writer), 3, rows("a"))
    assert storage_code(refused.value) == StorageErrorCode.OFFSET_OUT_OF_RANGE
    trailer = dict(refused.value.errors[0].trailing_metadata())
    assert b"StorageError" in trailer["grpc-status-details-bin"]


def test_an_error_can_come_without_details(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    for style in (ErrorStyle(details=False), ErrorStyle(abort=True, details=False)):
        stand_in.faults.error_style = style
        if style.abort:
            with pytest.raises(api.OutOfRange) as refused:
                append(writer, stream, 3, rows("a"))
            assert storage_code(refused.value) is None
        else:
            answer = append(writer, stream, 3, rows("a"))
            assert (answer.error.code, storage_code(answer.error)) == (11, None)


def test_a_call_fails_before_its_effect(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    rule = stand_in.faults.fail("AppendRows", grpc.StatusCode.INTERNAL, nth=2)
    answers = []
    with pytest.raises(api.InternalServerError):
        for answer in writer.append_rows(
            iter(
                [
                    append_request(stream, 0, rows("a")),
                    append_request(stream, 1, rows("b")),
                    append_request(stream, 2, rows("c")),
                ]
            ),
            retry=None,
        ):
            answers.append(answer.append_result.offset)
    assert (answers, rule.hits) == ([0], 1)
    assert finalize(writer, stream) == 1


def test_an_injected_error_can_be_answered_in_band(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    code = StorageErrorCode.INVALID_STREAM_STATE
    stand_in.faults.fail(
        "AppendRows", grpc.StatusCode.ABORTED, storage_code=code, style=ErrorStyle()
    )
    refused, accepted = send(writer, [append_request(stream, 0, rows("a"))] * 2)
    assert (refused.error.code, storage_code(refused.error)) == (10, code)
    assert accepted.append_result.offset == 0


UNARY: dict[str, Callable[[BigQueryWriteClient, str], Any]] = {
    "FinalizeWriteStream": lambda writer, stream: finalize(writer, stream),
    "BatchCommitWriteStreams": lambda writer, stream: commit(writer, stream),
}


@pytest.mark.parametrize("name", UNARY)
def test_an_answer_is_lost_after_the_effect(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient, name: str
) -> None:
    stream = create(writer)
    append(writer, stream, 0, rows("a"))
    if name == "BatchCommitWriteStreams":
        finalize(writer, stream)
    stand_in.faults.lose_answer(name)
    with pytest.raises(api.ServiceUnavailable):
        UNARY[name](writer, stream)
    if name == "FinalizeWriteStream":
        assert (
            storage_code(append(writer, stream, 1, rows("b")).error)
            == StorageErrorCode.STREAM_FINALIZED
        )
    else:
        assert stand_in.sql("SELECT id FROM t") == [("a",)]
        assert (
            commit(writer, stream).stream_errors[0].code
            == StorageErrorCode.STREAM_ALREADY_COMMITTED
        )
    assert stand_in.calls[name] == (1 if name == "FinalizeWriteStream" else 2)


def test_a_lost_answer_of_an_append_leaves_its_rows(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    stand_in.faults.lose_answer("AppendRows")
    with pytest.raises(api.ServiceUnavailable):
        append(writer, stream, 0, rows("a"))
    assert append(writer, stream, 0, rows("a")).error.code == 6
    assert stand_in.violations == []


def test_a_cut_loses_what_is_behind_it_in_the_connection(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    stand_in.faults.cut("AppendRows", nth=2)
    with pytest.raises(api.ServiceUnavailable):
        send(writer, [append_request(stream, offset, rows("a")) for offset in range(4)])
    assert finalize(writer, stream) == 1


def test_a_connection_can_be_refused(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    stand_in.faults.fail("AppendRows.connect", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(api.ServiceUnavailable):
        append(writer, stream, 0, rows("a"))
    assert append(writer, stream, 0, rows("a")).append_result.offset == 0


def test_an_append_is_answered_twice(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    stand_in.faults.answer_twice()
    answers = send(
        writer, [append_request(stream, 0, rows("a")), append_request(stream, 1, rows("b"))]
    )
    assert [answer.append_result.offset for answer in answers] == [0, 0, 1]
    assert finalize(writer, stream) == 2


def test_a_hook_is_called_before_or_after_the_effect(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream, seen = create(writer), []
    append(writer, stream, 0, rows("a"))
    finalize(writer, stream)
    for after in (False, True):
        stand_in.faults.hook(
            "BatchCommitWriteStreams",
            lambda call: seen.append((call.number, stand_in.sql("SELECT COUNT(*) FROM t"))),
            after=after,
        )
    commit(writer, stream)
    assert seen == [(1, [(0,)]), (1, [(1,)])]


def test_a_rule_acts_on_the_calls_that_its_predicate_accepts(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    rule = stand_in.faults.fail(
        "AppendRows", when=lambda call: call.request.offset.value == 1, times=2
    )
    assert append(writer, stream, 0, rows("a")).append_result.offset == 0
    for _ in range(2):
        with pytest.raises(api.ServiceUnavailable):
            append(writer, stream, 1, rows("b"))
    assert append(writer, stream, 1, rows("b")).append_result.offset == 1
    assert rule.hits == 2


def test_a_lost_answer_of_a_job_leaves_its_effect_and_its_id(stand_in: BigQueryStandIn) -> None:
    client = rest_client(stand_in)
    stand_in.faults.lose_answer("jobs.insert")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.query("INSERT INTO t (id) VALUES ('a')", job_id="j", retry=None, job_retry=None)
    assert stand_in.sql("SELECT id FROM t") == [("a",)]
    with pytest.raises(api.Conflict):
        client.query("INSERT INTO t (id) VALUES ('a')", job_id="j", retry=None, job_retry=None)
    assert client.get_job("j").num_dml_affected_rows == 1


def test_a_job_that_fails_for_another_ones_sake_has_used_up_its_id(
    stand_in: BigQueryStandIn,
) -> None:
    """https://cloud.google.com/bigquery/docs/data-manipulation-language#dml_statement_conflicts"""
    client = rest_client(stand_in)
    message = "Could not serialize access to table d.t due to concurrent update"
    stand_in.faults.fail(
        "jobs.run",
        400,
        reason="invalidQuery",
        message=message,
        when=lambda call: "INSERT" in call.request,
    )
    job = client.query("INSERT INTO t (id) VALUES ('a')", job_id="j", job_retry=None)
    with pytest.raises(api.BadRequest, match="serialize"):
        job.result(job_retry=None)
    with pytest.raises(api.Conflict):
        client.query("INSERT INTO t (id) VALUES ('a')", job_id="j", job_retry=None)
    assert stand_in.sql("SELECT COUNT(*) FROM t") == [(0,)]


def test_rest_calls_fail_are_cut_and_fail_after_the_effect(stand_in: BigQueryStandIn) -> None:
    client = rest_client(stand_in)
    stand_in.faults.fail("tables.get", 503, reason="backendError")
    with pytest.raises(api.ServiceUnavailable):
        client.get_table("d.t", retry=None)
    stand_in.faults.cut("tables.get")
    with pytest.raises(requests.exceptions.ConnectionError):
        client.get_table("d.t", retry=None)
    stand_in.faults.fail("tables.insert", 500, after=True)
    with pytest.raises(api.InternalServerError):
        client.create_table(
            bigquery.Table("p.d.u", [bigquery.SchemaField("id", "STRING")]), retry=None
        )
    assert client.get_table("d.u").num_rows == 0
    assert stand_in.calls["tables.get"] == 3


def test_a_delay_ends_with_the_stand_in() -> None:
    with BigQueryStandIn("p", "d") as stand_in:
        create_table(stand_in)
        stand_in.faults.delay("tables.get", 3600)
        arrived = threading.Event()
        stand_in.faults.add(stand_in.faults.hook("tables.get", lambda call: arrived.set()))
        stand_in.faults._rules.reverse()  # the hook first, then the delay
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(rest_client(stand_in).get_table, "d.t", retry=None)
            assert arrived.wait(SECONDS)
            stand_in._stopping.set()
            assert waiting.result(SECONDS).table_id == "t"
