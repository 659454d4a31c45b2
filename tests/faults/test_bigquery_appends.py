"""One RPC at a time: each fault before and after its effect, and what is then in the table. No row
lost, none twice, nothing stuck.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import pyarrow as pa
import pytest

from tests.bigquery_stand_in import BigQueryStandIn, ErrorStyle
from tests.bigquery_stand_in.errors import StorageErrorCode
from tests.support.bigquery import settings_of
from tests.unit.destinations.contract.write_streams import rows, visible
from transforms.destinations.bigquery import append_connection as bigquery_append
from transforms.destinations.bigquery import streams as bigquery_streams
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.rows import RowsRefused
from transforms.destinations.contract.write_streams import (
    OffsetAlreadyExists,
    OffsetOutOfRange,
    StreamAlreadyCommitted,
    StreamError,
    StreamFinalized,
    StreamNotFound,
)
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS, PAYMENTS

PASSING = [
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
]
STYLES = [ErrorStyle(abort, details) for abort in (False, True) for details in (False, True)]


@pytest.fixture
def destination(bigquery_destination: BigQueryDestination) -> BigQueryDestination:
    return bigquery_destination


def write_and_commit(destination: BigQueryDestination) -> list[int]:
    """Five appends, all in flight at once, then what a run does with its stream."""
    stream = destination.streams.create(GAPS)
    in_flight = [
        destination.streams.send(stream, 2 * number, rows(2 * number, 2 * number + 1))
        for number in range(5)
    ]
    assert [append.wait() for append in in_flight] == [2, 4, 6, 8, 10]
    assert destination.streams.finalize(stream) == 10
    with suppress(
        StreamAlreadyCommitted
    ):  # the answer to the first try was lost; for a fixed group this is success
        destination.streams.commit(GAPS, [stream])
    return visible(destination)


@pytest.mark.parametrize("nth", [1, 3, 5])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("code", PASSING)
@pytest.mark.parametrize("abort", [False, True], ids=["in-band", "abort"])
def test_appends_go_on_after_a_passing_error(
    stand_in: BigQueryStandIn,
    destination: BigQueryDestination,
    code: grpc.StatusCode,
    after: bool,
    nth: int,
    abort: bool,
) -> None:
    rule = stand_in.faults.fail(
        "AppendRows", code, after=after, nth=nth, style=ErrorStyle(abort=abort)
    )
    assert write_and_commit(destination) == list(range(10))
    assert rule.hits == 1


Fault = Callable[[BigQueryStandIn, str, int], Any]
FAULTS: dict[str, Fault] = {
    "cut": lambda stand_in, name, nth: stand_in.faults.cut(name, nth=nth),
    "answer lost": lambda stand_in, name, nth: stand_in.faults.lose_answer(name, nth=nth),
    "three times": lambda stand_in, name, nth: stand_in.faults.cut(name, nth=nth, times=3),
    "late": lambda stand_in, name, nth: stand_in.faults.delay(name, 0.05, nth=nth),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "rpc,nth",
    [
        ("CreateWriteStream", 1),
        *(("AppendRows", nth) for nth in range(1, 6)),
        ("AppendRows.connect", 1),
        ("FinalizeWriteStream", 1),
        ("BatchCommitWriteStreams", 1),
    ],
)
def test_a_broken_connection_loses_and_doubles_nothing(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, rpc: str, nth: int, fault: str
) -> None:
    rule = FAULTS[fault](stand_in, rpc, nth)
    assert write_and_commit(destination) == list(range(10))
    assert rule.hits >= 1


@pytest.mark.parametrize("nth", [1, 3, 5])
def test_an_answer_that_comes_twice_is_counted_once(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, nth: int
) -> None:
    rule = stand_in.faults.answer_twice(nth=nth)
    assert write_and_commit(destination) == list(range(10))
    assert rule.hits == 1


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_offsets_are_told_in_every_style(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, style: ErrorStyle
) -> None:
    stand_in.faults.error_style = style
    stream = destination.streams.create(GAPS)
    destination.streams.send(stream, 0, rows(0, 1)).wait()
    with pytest.raises(OffsetAlreadyExists):
        destination.streams.send(stream, 0, rows(0, 1)).wait()
    with pytest.raises(OffsetOutOfRange):
        destination.streams.send(stream, 3, rows(3)).wait()
    with pytest.raises(StreamNotFound):
        destination.streams.send(f"{stream}x", 0, rows(3)).wait()
    assert destination.streams.send(stream, 2, rows(2)).wait() == 3
    destination.streams.finalize(stream)
    # Without details the service only says that a precondition failed: never success, but not "you
    # are the zombie" either.
    with pytest.raises(StreamFinalized if style.details else GuaranteeError):
        destination.streams.send(stream, 3, rows(3)).wait()


def test_already_exists_is_no_success_on_a_stream_that_somebody_else_created(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    """After a lost acknowledgement: on a stream of another attempt it must be proven by the tables,
    so it is raised.
    """
    stream = destination.streams.create(GAPS)
    stand_in.faults.lose_answer("AppendRows")
    with BigQueryDestination(settings_of(stand_in)) as other, pytest.raises(OffsetAlreadyExists):
        other.streams.send(stream, 0, rows(0)).wait()


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_an_offset_that_exists_acknowledges_its_own_append_and_none_behind_it(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, style: ErrorStyle
) -> None:
    """One answer that ends the connection is about one append, however often the ended connection
    is asked.
    """
    stand_in.faults.error_style = style
    stand_in.faults.lose_answer("AppendRows", nth=2)
    assert write_and_commit(destination) == list(range(10))


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_what_is_behind_an_append_at_a_known_offset_of_somebody_elses_stream_goes_on(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, style: ErrorStyle
) -> None:
    """The first one may be there, which the caller has to prove; those behind it were never
    written.
    """
    stand_in.faults.error_style = style
    stream = destination.streams.create(GAPS)
    with BigQueryDestination(settings_of(stand_in)) as other:
        stand_in.faults.lose_answer("AppendRows", nth=2)
        in_flight = [other.streams.send(stream, number, rows(number)) for number in range(4)]
        assert in_flight[0].wait() == 1
        with pytest.raises(OffsetAlreadyExists):
            in_flight[1].wait()
        assert [append.wait() for append in in_flight[2:]] == [3, 4]
    assert destination.streams.finalize(stream) == 4


def test_appends_in_flight_to_a_stream_that_is_finalized_here_are_over_and_hold_up_no_others(
    destination: BigQueryDestination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle fails with appends in flight, and the next one in the process recovers the shard."""
    monkeypatch.setattr(bigquery_streams, "MAX_BYTES_IN_FLIGHT", 3 * rows(0).nbytes)
    failed, fresh = destination.streams.create(GAPS), destination.streams.create(GAPS)
    left = [destination.streams.send(failed, number, rows(number)) for number in range(2)]
    destination.streams.finalize(failed)
    in_flight = [destination.streams.send(fresh, number, rows(number)) for number in range(9)]
    assert [append.wait() for append in in_flight] == list(range(1, 10))
    for append in left:
        with pytest.raises(StreamError, match="in flight when this process finalized the stream"):
            append.wait()


def test_another_offset_than_the_expected_one_stops(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, monkeypatch: Any
) -> None:
    original = bigquery_append.of_response

    def shifted(response: Any) -> Any:
        response.append_result.offset.value += 1
        return original(response)

    monkeypatch.setattr(bigquery_append, "of_response", shifted)
    stream = destination.streams.create(GAPS)
    with pytest.raises(GuaranteeError, match="acknowledged stream offset 1 where 0 was expected"):
        destination.streams.send(stream, 0, rows(0)).wait()


def test_what_is_behind_a_refused_append_is_refused_with_it(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    stream = destination.streams.create(GAPS)
    in_flight = [
        destination.streams.send(stream, 0, rows(0)),
        destination.streams.send(stream, 5, rows(5)),
        destination.streams.send(stream, 6, rows(6)),
    ]
    assert in_flight[0].wait() == 1
    for append in in_flight[1:]:
        with pytest.raises(OffsetOutOfRange):
            append.wait()
    assert destination.streams.send(stream, 1, rows(1)).wait() == 2
    assert destination.streams.finalize(stream) == 2


def test_a_refused_row_is_named_with_its_coordinate_and_the_way_on(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    """What the decoder let through although the table does not take it."""
    (shape,) = [
        table
        for table in destination.tables._client.list_tables("payments-test.d")
        if table.table_id == PAYMENTS
    ]
    assert shape is not None
    good = {
        "event_time": 0,
        "amount": 1,
        "currency": "EUR",
        "kafka_topic": "payments",
        "kafka_partition": 3,
        "ingest_time": 0,
    }
    schema = pa.schema(
        [
            ("transaction_id", pa.string()),
            ("event_time", pa.timestamp("us", tz="UTC")),
            ("amount", pa.decimal128(38, 9)),
            ("currency", pa.string()),
            ("kafka_topic", pa.string()),
            ("kafka_partition", pa.int32()),
            ("kafka_offset", pa.int64()),
            ("ingest_time", pa.timestamp("us", tz="UTC")),
        ]
    )
    batch = pa.RecordBatch.from_pylist(
        [
            {**good, "transaction_id": None if offset in (11, 13) else "a", "kafka_offset": offset}
            for offset in range(10, 15)
        ],
        schema=schema,
    )
    stream = destination.streams.create(PAYMENTS)
    with pytest.raises(
        RowsRefused, match=r"--reject_records=payments:3:11,payments:3:13: exactly"
    ) as refused:
        destination.streams.send(stream, 0, batch).wait()
    assert (
        "payments:3:11: " in refused.value.message and "payments:3:12" not in refused.value.message
    )
    assert destination.streams.finalize(stream) == 0


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.DATA_LOSS,
    ],
)
@pytest.mark.parametrize(
    "rpc", ["CreateWriteStream", "AppendRows", "FinalizeWriteStream", "BatchCommitWriteStreams"]
)
def test_an_answer_that_nobody_knows_stops(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, rpc: str, code: grpc.StatusCode
) -> None:
    rule = stand_in.faults.fail(rpc, code)
    with pytest.raises(GuaranteeError, match=code.name):
        write_and_commit(destination)
    assert rule.hits == 1
    assert visible(destination) == []


@pytest.mark.parametrize(
    "rpc", ["CreateWriteStream", "AppendRows", "FinalizeWriteStream", "BatchCommitWriteStreams"]
)
def test_a_missing_role_stops_at_once_and_is_named(
    stand_in: BigQueryStandIn, destination: BigQueryDestination, rpc: str
) -> None:
    rule = stand_in.faults.fail(rpc, grpc.StatusCode.PERMISSION_DENIED, times=99)
    with pytest.raises(GuaranteeError, match=r"roles/bigquery\.dataEditor"):
        write_and_commit(destination)
    assert rule.hits == 1


def test_a_new_column_that_writers_do_not_see_yet_is_waited_for(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    rule = stand_in.faults.fail(
        "AppendRows",
        grpc.StatusCode.INVALID_ARGUMENT,
        times=4,
        storage_code=StorageErrorCode.SCHEMA_MISMATCH_EXTRA_FIELDS,
        style=ErrorStyle(abort=False),
    )
    assert write_and_commit(destination) == list(range(10))
    assert rule.hits == 4
