"""What the stand-in alone can show: the strict mode, connections, two clients at once, and running
as a process.

Stream lifetimes and faults: tests/bigquery_stand_in/test_lifetimes.py and test_faults.py. Only one
test waits for anything but an answer: the one that starts a process.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google.api_core.exceptions as api
import pyarrow as pa
import pytest
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient, types

from tests.bigquery_stand_in import BigQueryStandIn
from tests.bigquery_stand_in.appending import (
    SECONDS,
    StorageErrorCode,
    append,
    append_request,
    send,
    storage_code,
)
from tests.bigquery_stand_in.calls import (
    COMMITTED,
    PENDING,
    commit,
    create,
    create_table,
    finalize,
    rows,
)
from tests.bigquery_stand_in.clients import rest_client, write_client
from tests.support.child_process import ending_with_this_process

# Strict mode


def test_other_rows_at_a_known_offset_are_a_violation(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    for kind in (PENDING, COMMITTED):
        stand_in.violations.clear()
        stream = create(writer, kind)
        send(
            writer,
            [append_request(stream, 0, rows("a", "b")), append_request(stream, 2, rows("c"))],
        )
        for offset, same in ((0, "ab"), (1, "bc"), (2, "c"), (1, "b"), (2, "cd")):
            assert append(writer, stream, offset, rows(*same)).error.code == 6
        assert stand_in.violations == []
        assert append(writer, stream, 1, rows("x")).error.code == 13
        assert stand_in.violations == [f"{stream}: other rows than before were sent at offset 1"]
        assert finalize(writer, stream) == 3


def test_without_the_strict_mode_other_rows_just_exist_already() -> None:
    with BigQueryStandIn("p", "d", strict=False) as stand_in, write_client(stand_in) as writer:
        create_table(stand_in)
        stream = create(writer)
        append(writer, stream, 0, rows("a"))
        assert append(writer, stream, 0, rows("x")).error.code == 6
        assert stand_in.violations == []


# Connections and schemas


def test_a_newer_connection_ends_the_older_one(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    """https://cloud.google.com/bigquery/docs/write-api-best-practices: one active connection per
    application-created stream.
    """
    stream = create(writer)
    second = threading.Event()

    def older() -> Iterator[types.AppendRowsRequest]:
        yield append_request(stream, 0, rows("a"))
        assert second.wait(SECONDS)
        yield append_request(stream, 2, rows("zombie"))

    answers = writer.append_rows(older(), retry=None, timeout=SECONDS)
    assert next(answers).append_result.offset == 0
    assert append(writer, stream, 1, rows("b")).append_result.offset == 1
    second.set()
    with pytest.raises(api.Aborted):
        next(answers)
    assert finalize(writer, stream) == 2


def test_a_connection_to_a_stream_is_for_that_stream_alone(writer: BigQueryWriteClient) -> None:
    with pytest.raises(api.InvalidArgument):
        send(
            writer,
            [
                append_request(create(writer), 0, rows("a")),
                append_request(create(writer), 0, rows("a")),
            ],
        )


def test_protobuf_rows_are_not_implemented(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    request = types.AppendRowsRequest(
        write_stream=create(writer), proto_rows={"rows": {"serialized_rows": [b""]}}
    )
    with pytest.raises(api.MethodNotImplemented):
        send(writer, [request])


def test_a_change_of_the_schema_is_told_once(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    """https://cloud.google.com/bigquery/docs/write-api#schema_update_detection"""
    stream = create(writer)

    altered = threading.Event()

    def requests_() -> Iterator[types.AppendRowsRequest]:
        yield append_request(stream, 0, rows("a"))
        assert altered.wait(SECONDS)
        for offset in (1, 2):
            yield append_request(stream, offset, rows("a"))

    answers = writer.append_rows(requests_(), retry=None, timeout=SECONDS)
    before = next(answers)
    rest_client(stand_in).query("ALTER TABLE t ADD COLUMN note STRING").result()
    altered.set()
    changed, after = answers
    assert "updated_schema" not in before
    assert [field.name for field in changed.updated_schema.fields] == ["id", "note"]
    assert "updated_schema" not in after
    wide = pa.RecordBatch.from_pydict({"id": ["b"], "note": ["new"]})
    append(writer, stream, 3, wide)
    finalize(writer, stream)
    commit(writer, stream)
    assert sorted(stand_in.sql("SELECT note FROM t WHERE note IS NOT NULL")) == [("new",)]
    assert stand_in.sql("SELECT COUNT(*) FROM t") == [(4,)]


def test_rows_that_are_no_arrow_are_refused(writer: BigQueryWriteClient) -> None:
    stream = create(writer)
    good = append_request(stream, 0, rows("a"))
    broken = append_request(stream, 0, rows("a"))
    broken.arrow_rows.rows.serialized_record_batch = b"no arrow"
    hostile = append_request(
        stream, 0, pa.RecordBatch.from_arrays([pa.array([b"\xff", b"a"]).view(pa.string())], ["id"])
    )
    empty = append_request(stream, 0, rows())
    answers = send(writer, [broken, hostile, empty, good])
    assert [answer.error.code for answer in answers] == [3, 3, 3, 0]
    assert [error.index for error in answers[1].row_errors] == [0]


# The rest


def test_of_two_updates_at_the_same_time_one_wins(stand_in: BigQueryStandIn) -> None:
    """https://cloud.google.com/bigquery/docs/data-manipulation-language#concurrent_jobs"""
    client = rest_client(stand_in)
    client.query("CREATE TABLE runs (id STRING NOT NULL, successor STRING)").result()
    client.query("INSERT INTO runs (id) VALUES ('r')").result()

    def claim(number: int) -> int:
        job = client.query(
            f"UPDATE runs SET successor = '{number}' WHERE id = 'r' AND successor IS NULL"
        )
        job.result()
        return job.num_dml_affected_rows

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(claim, range(8))) == [0] * 7 + [1]


def test_of_two_jobs_with_one_id_at_the_same_time_one_runs(stand_in: BigQueryStandIn) -> None:
    client = rest_client(stand_in)

    def insert(number: int) -> bool:
        try:
            client.query(
                "INSERT INTO t (id) VALUES ('a')", job_id="j", retry=None, job_retry=None
            ).result()
        except api.Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(insert, range(8))) == 1
    assert stand_in.sql("SELECT COUNT(*) FROM t") == [(1,)]


def test_many_connections_append_at_the_same_time(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    def write(number: int) -> str:
        stream = create(writer)
        send(
            writer,
            [append_request(stream, offset, rows(f"{number}.{offset}")) for offset in range(10)],
        )
        assert finalize(writer, stream) == 10
        return stream

    with ThreadPoolExecutor(8) as pool:
        assert not commit(writer, *pool.map(write, range(20))).stream_errors
    assert stand_in.sql("SELECT COUNT(DISTINCT id), COUNT(*) FROM t") == [(200, 200)]


def test_discarded_rows_are_counted_with_the_right_offsets() -> None:
    with BigQueryStandIn("p", "d", discard_rows=True) as stand_in, write_client(stand_in) as writer:
        create_table(stand_in)
        stream = create(writer)
        answers = send(
            writer, [append_request(stream, offset, rows("a", "b")) for offset in (0, 2, 2, 9)]
        )
        assert [answer.append_result.offset for answer in answers[:2]] == [0, 2]
        assert [answer.error.code for answer in answers[2:]] == [6, 11]
        assert finalize(writer, stream) == 4
        assert not commit(writer, stream).stream_errors
        assert stand_in.sql("SELECT COUNT(*) FROM t") == [(0,)]


def test_a_stream_of_a_deleted_table_cannot_be_committed(
    stand_in: BigQueryStandIn, writer: BigQueryWriteClient
) -> None:
    stream = create(writer)
    rest_client(stand_in).delete_table("d.t")
    with pytest.raises(api.NotFound) as refused:
        commit(writer, stream)
    assert storage_code(refused.value) == StorageErrorCode.TABLE_NOT_FOUND


def test_another_project_is_denied(stand_in: BigQueryStandIn, writer: BigQueryWriteClient) -> None:
    with pytest.raises(api.PermissionDenied):
        writer.create_write_stream(
            parent="projects/q/datasets/d/tables/t",
            write_stream=types.WriteStream(type_=PENDING),
            retry=None,
        )
    with pytest.raises(api.Forbidden):
        rest_client(stand_in).get_table("q.d.t", retry=None)


def test_tables_in_a_file_outlive_the_process_of_the_stand_in(tmp_path: Path) -> None:
    ready, database = tmp_path / "ready.json", tmp_path / "bigquery.duckdb"
    command = [
        sys.executable,
        "-m",
        "tests.bigquery_stand_in",
        "--dataset=d",
        f"--database={database}",
        f"--ready_file={ready}",
    ]
    process = subprocess.Popen(ending_with_this_process(command), cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + SECONDS
        while not ready.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        endpoint = json.loads(ready.read_text())["rest_endpoint"]
        client = bigquery.Client(
            "p", AnonymousCredentials(), client_options={"api_endpoint": endpoint}
        )
        client.query("CREATE TABLE d.t (id STRING NOT NULL, n NUMERIC) CLUSTER BY id").result()
        client.query("INSERT INTO d.t (id, n) VALUES ('a', 1.5)").result()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    with BigQueryStandIn("p", "d", database=str(database)) as stand_in:
        found = rest_client(stand_in).get_table("d.t")
        assert (found.num_rows, found.clustering_fields, found.schema[0].mode) == (
            1,
            ["id"],
            "REQUIRED",
        )
