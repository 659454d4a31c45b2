"""What the stand-in forgets, refuses and answers when time goes by."""

import google.api_core.exceptions as api
import pytest
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types

from tests.bigquery_stand_in import BigQueryStandIn, ManualClock
from tests.bigquery_stand_in.appending import StorageErrorCode, append, storage_code
from tests.bigquery_stand_in.calls import (
    BUFFERED,
    COMMITTED,
    TABLE,
    commit,
    create,
    create_table,
    finalize,
    rows,
)
from tests.bigquery_stand_in.clients import rest_client, write_client

# Lifetimes: https://cloud.google.com/bigquery/docs/write-api


def test_a_pending_stream_must_be_finalized_within_a_day(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    append(writer, stream, 0, rows("a"))
    stand_in.clock.advance(hours=24)
    assert append(writer, stream, 1, rows("b")).append_result.offset == 1
    stand_in.clock.advance(seconds=1)
    with pytest.raises(api.NotFound):
        finalize(writer, stream)


def test_a_finalized_stream_must_be_committed_within_four_hours(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    in_time, too_late = create(writer), create(writer)
    for stream, row_id in ((in_time, "a"), (too_late, "b")):
        append(writer, stream, 0, rows(row_id))
        finalize(writer, stream)
    stand_in.clock.advance(hours=4)
    assert not commit(writer, in_time).stream_errors
    stand_in.clock.advance(seconds=1)
    assert [error.code for error in commit(writer, too_late).stream_errors] == [
        StorageErrorCode.STREAM_NOT_FOUND
    ]
    assert stand_in.sql("SELECT id FROM t") == [("a",)]


@pytest.mark.parametrize(("kind", "days"), [(COMMITTED, 3), (BUFFERED, 7)])
def test_an_idle_stream_is_forgotten(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient, kind: types.WriteStream.Type, days: int
) -> None:
    stream = create(writer, kind)
    for offset in range(2):
        stand_in.clock.advance(days=days)
        assert append(writer, stream, offset, rows("a")).append_result.offset == offset
    stand_in.clock.advance(days=days, seconds=1)
    answer = append(writer, stream, 2, rows("a"))
    assert (answer.error.code, storage_code(answer.error)) == (5, StorageErrorCode.STREAM_NOT_FOUND)


def test_a_committed_pending_stream_is_remembered_until_a_test_forgets_it(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    finalize(writer, stream)
    commit(writer, stream)
    stand_in.clock.advance(days=30)
    assert [error.code for error in commit(writer, stream).stream_errors] == [
        StorageErrorCode.STREAM_ALREADY_COMMITTED
    ]
    stand_in.forget_stream(stream)
    assert [error.code for error in commit(writer, stream).stream_errors] == [
        StorageErrorCode.STREAM_NOT_FOUND
    ]


def test_the_quota_of_new_streams_counts_the_last_hour() -> None:
    """https://cloud.google.com/bigquery/quotas#write-api-limits"""
    clock = ManualClock()
    with (
        BigQueryStandIn("p", "d", clock=clock, streams_per_hour=2) as stand_in,
        write_client(stand_in) as writer,
    ):
        create_table(stand_in)
        create(writer)
        clock.advance(minutes=30)
        create(writer)
        with pytest.raises(api.ResourceExhausted):
            create(writer)
        clock.advance(minutes=30)
        create(writer)
        with pytest.raises(api.ResourceExhausted):
            create(writer)


def test_dml_may_change_streamed_rows_after_half_an_hour(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    """https://cloud.google.com/bigquery/docs/data-manipulation-language"""
    append(writer, f"{TABLE}/streams/_default", None, rows("a"))
    client = rest_client(stand_in)
    for statement in (
        "UPDATE t SET id = 'b' WHERE TRUE",
        "DELETE FROM t WHERE FALSE",
        "TRUNCATE TABLE t",
    ):
        with pytest.raises(api.BadRequest, match="streaming buffer"):
            client.query(statement, job_retry=None).result(job_retry=None)
    client.query("INSERT INTO t (id) VALUES ('c')").result()
    stand_in.clock.advance(minutes=30)
    client.query("UPDATE t SET id = 'b' WHERE id = 'a'").result()
    assert sorted(stand_in.sql("SELECT id FROM t")) == [("b",), ("c",)]


def test_queries_and_views_follow_the_clock(stand_in: BigQueryStandIn) -> None:
    client = rest_client(stand_in)
    client.query(
        "CREATE VIEW today AS SELECT CURRENT_DATE() AS day, UNIX_SECONDS(CURRENT_TIMESTAMP()) AS"
        " moment"
    ).result()
    for _ in range(2):
        (found,) = client.query("SELECT day, moment FROM today").result()
        assert tuple(found.values()) == (stand_in.clock().date(), int(stand_in.clock().timestamp()))
        stand_in.clock.advance(days=1)


def test_a_request_id_is_remembered_for_a_quarter_of_an_hour(stand_in: BigQueryStandIn) -> None:
    """https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/query"""
    call = rest_client(stand_in)._connection.api_request
    body = {"query": "INSERT INTO d.t (id) VALUES ('a')", "useLegacySql": False, "requestId": "r"}
    for minutes, expected in ((0, 1), (14, 1), (2, 2)):
        stand_in.clock.advance(minutes=minutes)
        call(method="POST", path="/projects/p/queries", data=body)
        assert stand_in.sql("SELECT COUNT(*) FROM t") == [(expected,)]


# Time travel: tests/bigquery_stand_in/test_sql_contract.py has what BigQuery promises


def test_without_a_history_a_table_is_known_from_its_last_change_on(
    stand_in: BigQueryStandIn,
) -> None:
    """The clock stands still, and moments before and after a change differ all the same."""
    client = rest_client(stand_in)

    def change(row_id: str) -> int:
        client.query(f"INSERT INTO t (id) VALUES ('{row_id}')").result()
        ((now,),) = client.query("SELECT UNIX_MICROS(CURRENT_TIMESTAMP())").result()
        return int(now)

    def ids_at(moment: int) -> list[str]:
        sql = f"SELECT id FROM t FOR SYSTEM_TIME AS OF TIMESTAMP_MICROS({moment}) ORDER BY id"
        return [row.id for row in client.query(sql, job_retry=None).result(job_retry=None)]

    before = change("a")
    assert ids_at(before) == ["a"]
    after = change("b")
    assert ids_at(after) == ["a", "b"]
    with pytest.raises(api.BadRequest, match="keep_history"):
        ids_at(before)
    with pytest.raises(api.BadRequest, match="Cannot read before"):
        ids_at(before - 1_000_000)


def test_a_view_has_no_history(stand_in: BigQueryStandIn) -> None:
    client = rest_client(stand_in)
    client.query("CREATE VIEW v AS SELECT id FROM d.t").result()
    with pytest.raises(api.BadRequest, match="is a view"):
        client.query(
            "SELECT id FROM v FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()", job_retry=None
        ).result(job_retry=None)
