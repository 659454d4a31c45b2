"""What BigQuery promises about write streams, as tests against the stand-in, or against the real
service where BIGQUERY_PROJECT and BIGQUERY_DATASET are set. Tables and jobs:
tests/bigquery_stand_in/test_rest_contract.py; SQL: tests/bigquery_stand_in/test_sql_contract.py.

Each test names its source. What needs another clock or faults is in test_strict_mode.py.
"""

import datetime
from decimal import Decimal

import google.api_core.exceptions as api
import pyarrow as pa
import pytest
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import types

from tests.bigquery_stand_in import limits
from tests.bigquery_stand_in.appending import (
    StorageErrorCode,
    append,
    append_request,
    send,
    storage_code,
)
from tests.bigquery_stand_in.service import (
    BUFFERED,
    COMMITTED,
    PENDING,
    UTC,
    Service,
    rows,
    source,
)

# Offsets


@source(limits.WRITE_API_RPC)
def test_an_append_at_the_end_is_answered_with_its_offset(service: Service, table: str) -> None:
    stream = service.create_stream(table)
    answers = send(
        service.writer,
        [
            append_request(stream, 0, rows("a", "b")),
            append_request(stream, 2, rows("c"), schema=False),
        ],
    )
    assert [answer.append_result.offset for answer in answers] == [0, 2]
    assert [answer.write_stream for answer in answers] == [stream, stream]


@source(limits.WRITE_API_RPC)
def test_an_append_before_the_end_already_exists_and_the_connection_goes_on(
    service: Service, table: str
) -> None:
    stream = service.create_stream(table)
    sent = ((0, "ab"), (0, "ab"), (1, "b"), (2, "c"))
    _, again, within, onward = send(
        service.writer, [append_request(stream, offset, rows(*ids)) for offset, ids in sent]
    )
    for refused in (again, within):
        assert (refused.error.code, storage_code(refused.error)) == (
            6,
            StorageErrorCode.OFFSET_ALREADY_EXISTS,
        )
    assert onward.append_result.offset == 2
    assert service.finalize(stream) == 3


@source(limits.WRITE_API_RPC)
def test_an_append_behind_the_end_is_out_of_range(service: Service, table: str) -> None:
    stream = service.create_stream(table)
    answer = append(service.writer, stream, 5, rows("a"))
    assert answer.error.code == 11
    assert storage_code(answer.error) == StorageErrorCode.OFFSET_OUT_OF_RANGE
    assert service.finalize(stream) == 0


@source(limits.WRITE_API_RPC)
def test_an_append_without_an_offset_goes_to_the_end(service: Service, table: str) -> None:
    stream = service.create_stream(table)
    assert [
        append(service.writer, stream, None, rows(row_id)).append_result.offset for row_id in "ab"
    ] == [0, 1]


@source(limits.WRITE_API_BATCH)
@pytest.mark.parametrize("offset", [0, 1, 7, None])
def test_a_finalized_stream_refuses_every_append(
    service: Service, table: str, offset: int | None
) -> None:
    stream = service.finished(table, "a")
    answer = append(service.writer, stream, offset, rows("a"))
    assert storage_code(answer.error) == StorageErrorCode.STREAM_FINALIZED


@source(limits.WRITE_API_RPC)
def test_unknown_streams_and_tables_are_not_found(service: Service, table: str) -> None:
    unknown = f"{table}/streams/none"
    answer = append(service.writer, unknown, 0, rows("a"))
    assert (answer.error.code, storage_code(answer.error)) == (5, StorageErrorCode.STREAM_NOT_FOUND)
    with pytest.raises(api.NotFound) as finalizing:
        service.finalize(unknown)
    assert storage_code(finalizing.value) == StorageErrorCode.STREAM_NOT_FOUND
    with pytest.raises(api.NotFound):
        service.create_stream(f"{table}_none")


# Visibility and commit


def _ids_at(service: Service, table: str, moment: datetime.datetime) -> list[str]:
    name = table.rsplit("/", 1)[-1]
    clause = f"FOR SYSTEM_TIME AS OF TIMESTAMP '{moment.isoformat()}'"
    return [
        row_id for (row_id,) in service.query(f"SELECT t.id FROM {name} AS t {clause} ORDER BY id")
    ]


def _now(service: Service) -> datetime.datetime:
    ((now,),) = service.query("SELECT CURRENT_TIMESTAMP()")
    assert isinstance(now, datetime.datetime)
    return now


@source(limits.TIME_TRAVEL)
def test_rows_that_were_acknowledged_are_in_a_snapshot_of_a_later_moment(
    service: Service, table: str
) -> None:
    """Source: limits.TIME_TRAVEL. `check` relies on it (contract/snapshot.py): the moment is
    BigQuery's own, asked for after the acknowledgement; rows still lie in the write buffer.
    """
    streamed = service.create_stream(table, COMMITTED)
    append(service.writer, streamed, 0, rows("streamed"))
    after_append = _now(service)
    pending = service.finished(table, "pending")
    service.commit(table, pending)
    after_commit = _now(service)
    append(service.writer, streamed, 1, rows("too late"))
    assert _ids_at(service, table, after_append) == ["streamed"]
    assert _ids_at(service, table, after_commit) == ["pending", "streamed"]
    assert service.ids(table) == ["pending", "streamed", "too late"]


@source(limits.WRITE_API_BATCH)
def test_pending_rows_are_visible_after_the_commit_only(service: Service, table: str) -> None:
    stream = service.create_stream(table)
    append(service.writer, stream, 0, rows("a", "b"))
    assert service.ids(table) == []
    assert service.finalize(stream) == 2
    assert service.ids(table) == []
    assert service.commit(table, stream).commit_time is not None
    assert service.ids(table) == ["a", "b"]


@source(limits.WRITE_API_STREAMING)
def test_committed_rows_are_visible_at_the_acknowledgement(service: Service, table: str) -> None:
    stream = service.create_stream(table, COMMITTED)
    append(service.writer, stream, 0, rows("a"))
    assert service.ids(table) == ["a"]
    append(service.writer, stream, 1, rows("b"))
    assert service.ids(table) == ["a", "b"]
    assert service.finalize(stream) == 2


@source(limits.WRITE_API_RPC)
def test_buffered_rows_are_visible_up_to_the_flushed_offset(service: Service, table: str) -> None:
    stream = service.create_stream(table, BUFFERED)
    append(service.writer, stream, 0, rows("a", "b", "c"))
    assert service.ids(table) == []
    assert (
        service.writer.flush_rows(
            types.FlushRowsRequest(write_stream=stream, offset=1), retry=None
        ).offset
        == 1
    )
    assert service.ids(table) == ["a", "b"]
    with pytest.raises(api.OutOfRange):
        service.writer.flush_rows(types.FlushRowsRequest(write_stream=stream, offset=3), retry=None)


@source(limits.WRITE_API)
def test_the_default_stream_takes_no_offset_and_is_visible_at_once(
    service: Service, table: str
) -> None:
    default = f"{table}/streams/_default"
    answer = append(service.writer, default, None, rows("a"))
    assert not answer.error.code
    assert "offset" not in answer.append_result
    assert service.ids(table) == ["a"]
    assert append(service.writer, default, 1, rows("b")).error.code == 3


@source(limits.WRITE_API_BATCH)
def test_finalizing_again_answers_the_same(service: Service, table: str) -> None:
    stream = service.finished(table, "a", "b")
    assert service.finalize(stream) == 2
    service.commit(table, stream)
    assert service.finalize(stream) == 2


@source(limits.WRITE_API_BATCH)
def test_a_commit_is_atomic_over_the_streams_of_a_table(service: Service, table: str) -> None:
    ready, unfinished = service.finished(table, "a"), service.create_stream(table)
    append(service.writer, unfinished, 0, rows("b"))
    cases = {
        unfinished: StorageErrorCode.INVALID_STREAM_STATE,
        f"{table}/streams/none": StorageErrorCode.STREAM_NOT_FOUND,
    }
    for bad, code in cases.items():
        answer = service.commit(table, ready, bad)
        assert "commit_time" not in answer
        assert [(error.code, error.entity) for error in answer.stream_errors] == [(code, bad)]
        assert service.ids(table) == []
    service.finalize(unfinished)
    assert not service.commit(table, ready, unfinished).stream_errors
    assert service.ids(table) == ["a", "b"]


@source(limits.WRITE_API_RPC)
def test_a_stream_is_committed_once_and_one_committed_stream_stops_its_group(
    service: Service, table: str
) -> None:
    first, second = service.finished(table, "a"), service.finished(table, "b")
    service.commit(table, first)
    for group in ([first], [second, first]):
        answer = service.commit(table, *group)
        assert "commit_time" not in answer
        assert [(error.code, error.entity) for error in answer.stream_errors] == [
            (StorageErrorCode.STREAM_ALREADY_COMMITTED, first)
        ]
        assert service.ids(table) == ["a"]


@source(limits.WRITE_API_RPC)
def test_only_pending_streams_can_be_committed_and_only_buffered_flushed(
    service: Service, table: str
) -> None:
    committed, pending = service.create_stream(table, COMMITTED), service.create_stream(table)
    service.finalize(committed)
    (error,) = service.commit(table, committed).stream_errors
    assert error.code == StorageErrorCode.INVALID_STREAM_TYPE
    for stream in (committed, pending):
        with pytest.raises(api.InvalidArgument):
            service.writer.flush_rows(
                types.FlushRowsRequest(write_stream=stream, offset=0), retry=None
            )


@source(limits.WRITE_API_RPC)
def test_streams_of_another_table_cannot_be_committed(service: Service, table: str) -> None:
    stream = service.finished(service.create_table(), "a")
    with pytest.raises(api.InvalidArgument):
        service.commit(table, stream)


@source(limits.WRITE_API_LIMITS)
def test_more_streams_than_the_limit_cannot_be_committed(service: Service, table: str) -> None:
    with pytest.raises(api.InvalidArgument):
        service.commit(
            table,
            *(f"{table}/streams/{number}" for number in range(limits.MAX_STREAMS_PER_COMMIT + 1)),
        )


@source(limits.WRITE_API_BATCH)
def test_a_stream_without_rows_can_be_committed(service: Service, table: str) -> None:
    assert not service.commit(table, service.finished(table)).stream_errors
    assert service.ids(table) == []


# Rows


@source(limits.WRITE_API_RPC)
def test_a_missing_required_value_rejects_the_whole_append_with_the_indexes(
    service: Service, table: str
) -> None:
    stream = service.create_stream(table)
    answer = append(service.writer, stream, 0, rows("a", None, "c", None))
    assert answer.error.code == 3
    assert [error.index for error in answer.row_errors] == [1, 3]
    assert append(service.writer, stream, 0, rows("a", "c")).append_result.offset == 0
    assert service.finalize(stream) == 2


@source(limits.WRITE_API_RPC)
def test_a_schema_without_a_required_column_rejects_every_row(service: Service, table: str) -> None:
    stream = service.create_stream(table)
    answer = append(
        service.writer,
        stream,
        0,
        pa.RecordBatch.from_pydict({"amount": pa.array([None, None], pa.decimal128(38, 9))}),
    )
    assert answer.error.code == 3
    assert service.finalize(stream) == 0


@source(limits.WRITE_API_TYPES)
def test_a_numeric_out_of_range_rejects_the_whole_append(service: Service, table: str) -> None:
    stream = service.create_stream(table)
    amounts = pa.array([Decimal(1), Decimal(10) ** 37], pa.decimal128(38, 0))
    answer = append(
        service.writer, stream, 0, pa.RecordBatch.from_pydict({"id": ["a", "b"], "amount": amounts})
    )
    assert answer.error.code == 3
    assert [error.index for error in answer.row_errors] == [1]


@source(limits.WRITE_API_RPC)
def test_unknown_columns_are_a_schema_mismatch(service: Service, table: str) -> None:
    stream = service.create_stream(table)
    answer = append(
        service.writer, stream, 0, pa.RecordBatch.from_pydict({"id": ["a"], "surplus": ["b"]})
    )
    assert answer.error.code == 3
    assert storage_code(answer.error) == StorageErrorCode.SCHEMA_MISMATCH_EXTRA_FIELDS


@source(limits.WRITE_API_TYPES)
@pytest.mark.parametrize(
    "values", [pa.array([1.5]), pa.array(["1.5"]), pa.array([1], pa.decimal256(50, 9))]
)
def test_an_arrow_type_that_the_column_does_not_take_is_refused(
    service: Service, table: str, values: pa.Array
) -> None:
    stream = service.create_stream(table)
    assert (
        append(
            service.writer, stream, 0, pa.RecordBatch.from_pydict({"id": ["a"], "amount": values})
        ).error.code
        == 3
    )


@source(limits.WRITE_API_TYPES)
def test_every_column_type_comes_back_as_it_was_written(service: Service) -> None:
    kinds = ("STRING", "BYTES", "INT64", "FLOAT64", "BOOL", "NUMERIC", "TIMESTAMP", "DATE", "JSON")
    nested = [
        bigquery.SchemaField("name", "STRING", "REQUIRED"),
        bigquery.SchemaField("size", "INT64"),
    ]
    columns = [bigquery.SchemaField(kind.lower(), kind) for kind in kinds]
    columns += [
        bigquery.SchemaField("numbers", "INT64", "REPEATED"),
        bigquery.SchemaField("parts", "RECORD", "REPEATED", fields=nested),
    ]
    table = service.create_table(columns)
    at = datetime.datetime(2026, 8, 1, 12, 30, 0, 123456, tzinfo=UTC)
    batch = pa.RecordBatch.from_pydict(
        {
            "string": ["é", None],
            "bytes": [b"\x00\xff", None],
            "int64": pa.array([-(1 << 63), None], pa.int64()),
            "float64": [0.1, None],
            "bool": [True, None],
            "numeric": pa.array(
                [Decimal("-99999999999999999999999999999.999999999"), None], pa.decimal128(38, 9)
            ),
            "timestamp": pa.array([at, None], pa.timestamp("us", tz="UTC")),
            "date": pa.array([at.date(), None], pa.date32()),
            "json": ['{"a": [1, "b"]}', None],
            "numbers": pa.array([[1, 2], []], pa.list_(pa.int64())),
            "parts": [[{"name": "x", "size": 3}, {"name": "y", "size": None}], []],
        }
    )
    assert not append(service.writer, f"{table}/streams/_default", None, batch).error.code
    first, second = sorted(
        service.query(f"SELECT * FROM {table.rsplit('/', 1)[-1]}"), key=lambda row: row[0] is None
    )
    numbers = (-(1 << 63), 0.1, True, Decimal("-99999999999999999999999999999.999999999"))
    parts = [{"name": "x", "size": 3}, {"name": "y", "size": None}]
    assert first == ("é", b"\x00\xff", *numbers, at, at.date(), {"a": [1, "b"]}, [1, 2], parts)
    assert second == (*[None] * 9, [], [])


@source(limits.WRITE_API_TYPES)
def test_a_null_in_a_required_field_of_a_record_rejects_its_row(service: Service) -> None:
    part = bigquery.SchemaField(
        "part", "RECORD", fields=[bigquery.SchemaField("name", "STRING", "REQUIRED")]
    )
    stream = service.create_stream(service.create_table([part]))
    batch = pa.RecordBatch.from_pylist([{"part": {"name": "x"}}, {"part": {"name": None}}])
    answer = append(service.writer, stream, 0, batch)
    assert [error.index for error in answer.row_errors] == [1]


# Requests and connections


@source(limits.WRITE_API_RPC)
def test_a_request_above_the_limit_is_an_invalid_argument(service: Service, table: str) -> None:
    stream = service.create_stream(table)
    large = rows("x" * (21 << 20))
    with pytest.raises(
        api.InvalidArgument
    ):  # in-band or as the end of the connection: both are documented
        answer = append(service.writer, stream, 0, large)
        if answer.error.code == 3:
            raise api.InvalidArgument(answer.error.message)
    assert service.finalize(stream) == 0


@source(limits.WRITE_API_RPC)
def test_the_first_request_of_a_connection_carries_stream_and_schema(
    service: Service, table: str
) -> None:
    stream = service.create_stream(table)
    for request in (
        append_request(stream, 0, rows("a"), schema=False),
        append_request("", 0, rows("a")),
    ):
        with pytest.raises(api.InvalidArgument):
            send(service.writer, [request])


@source(limits.WRITE_API_RPC)
def test_a_stream_is_described_with_its_type_and_schema(service: Service, table: str) -> None:
    created = service.writer.create_write_stream(
        parent=table, write_stream=types.WriteStream(type_=PENDING)
    )
    assert created.name.startswith(f"{table}/streams/")
    assert [field.name for field in created.table_schema.fields] == ["id", "amount", "at"]
    found = service.writer.get_write_stream(
        types.GetWriteStreamRequest(name=created.name), retry=None
    )
    assert (found.name, found.type_, found.create_time) == (
        created.name,
        PENDING,
        created.create_time,
    )
    assert "commit_time" not in found
