"""Interleavings, answers and inputs that once broke runs into BigQuery; each was searched for."""

from __future__ import annotations

from collections import Counter
from typing import Any

import grpc
import pytest

from pipeline.options.schema_file import load_schema
from pipeline.run import command as run_module
from pipeline.run import commit as commit_step
from tests.bigquery_stand_in import BigQueryStandIn, ErrorStyle
from tests.faults.dying import die_while_committing
from tests.support.bigquery import bigquery, failures, forget_streams, is_right, statuses
from tests.support.in_memory_kafka import (
    MARKER,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    payment,
    run,
)
from tests.support.whole_runs import fill
from tests.unit.destinations.contract.write_streams import rows
from transforms.destinations.appends import MAX_APPEND_BYTES
from transforms.destinations.bigquery import reports as bigquery_reports
from transforms.destinations.bigquery import retry as bigquery_retry
from transforms.destinations.bigquery import streams as bigquery_streams
from transforms.destinations.bigquery.append_connection import AppendConnection
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.retry import RetryPolicy
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS, PREPARED
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError, UsageError
from transforms.model.tables import GAPS


def opened(stand_in: BigQueryStandIn) -> Any:
    settings = bigquery(stand_in)
    return open_destination(settings.destination, **settings.destination_options)


# A run that is still alive while another one finds it PREPARED.


@pytest.mark.parametrize(
    "style",
    [ErrorStyle(abort=False, details=False), ErrorStyle(abort=True, details=True)],
    ids=["bare", "detailed"],
)
def test_one_answer_that_a_stream_is_not_found_makes_nobody_write_its_rows_again(
    kafka: InMemoryKafka,
    stand_in: BigQueryStandIn,
    monkeypatch: pytest.MonkeyPatch,
    style: ErrorStyle,
) -> None:
    """The owner is alive and slow; its streams are there. A run that believes the answer plans
    the same records again, and both commit.
    """
    fill(kafka)
    original = run_module.commit

    def slow(*arguments: Any) -> Any:
        monkeypatch.setattr(run_module, "commit", original)
        stand_in.faults.fail("BatchCommitWriteStreams", grpc.StatusCode.NOT_FOUND, style=style)
        with pytest.raises(GuaranteeError, match="The next run finishes it"):
            run(bigquery(stand_in))
        assert statuses(stand_in) == [PREPARED]
        return original(*arguments)

    monkeypatch.setattr(run_module, "commit", slow)
    run(bigquery(stand_in))
    is_right(stand_in)
    assert statuses(stand_in) == [COMMITTED]


def test_a_process_that_has_slept_for_longer_than_its_streams_live_commits_nothing_more(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Days later another run has repaired its record from the tables; a commit now could make rows
    visible a second time.
    """
    fill(kafka)
    original, calls = commit_step.commit_table, 0

    def sleeping(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        original(*arguments)
        if calls == 2:
            now = commit_step.Moment.now()
            monkeypatch.setattr(
                commit_step.Moment,
                "now",
                lambda: commit_step.Moment(now.wall + 86_400, now.monotonic),
            )

    with (
        monkeypatch.context() as patch,
        pytest.raises(GuaranteeError, match="must not go on with it"),
    ):
        patch.setattr(commit_step, "commit_table", sleeping)
        run(bigquery(stand_in))
    assert calls == 2
    monkeypatch.undo()
    monkeypatch.setattr(bigquery_retry, "FIRST_DELAY_SECONDS", 0.001)
    from tests.support.in_memory_kafka import use

    use(kafka, monkeypatch)
    run(bigquery(stand_in))
    is_right(stand_in)


def test_expired_streams_are_believed_when_two_answers_agree(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(kafka)
    die_while_committing(1, lambda: run(bigquery(stand_in)), monkeypatch)
    forget_streams(stand_in)
    run(bigquery(stand_in))
    is_right(stand_in)
    assert stand_in.calls["GetWriteStream"] >= 1


# Sizes.


def test_gaps_totals_and_reports_are_cut_to_appends_that_fit(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A producer of one-record transactions leaves a gap a record; a backfill has a window a
    minute, and as many currencies as were sent.
    """
    monkeypatch.setattr("transforms.destinations.appends.MAX_APPEND_BYTES", 20_000)
    monkeypatch.setattr(bigquery_reports, "PIECE_BYTES", 10_000)
    kafka.create("payments", 1)
    for number in range(1500):
        kafka.send(
            "payments",
            0,
            payment(f"id-{number}", NOW_US - number * MINUTE_US, currency=f"c{number}"),
            MARKER,
        )
    largest = 0

    def look(call: Any) -> None:
        nonlocal largest
        largest = max(largest, len(call.request.arrow_rows.rows.serialized_record_batch))

    stand_in.faults.hook("AppendRows", look, times=10_000)
    run(bigquery(stand_in))
    assert 10_000 < largest < 40_000
    assert stand_in.sql("SELECT COUNT(*) FROM offset_gaps") == [(1500,)]
    assert failures(stand_in) == []


def test_reports_of_any_size_come_back_as_they_were(stand_in: BigQueryStandIn) -> None:
    with opened(stand_in) as destination:
        destination.tables.create(load_schema(None))
        reports = [
            b"",
            b"small",
            b"x" * (3 * bigquery_reports.PIECE_BYTES + 5),
            b"y" * MAX_APPEND_BYTES,
        ]
        destination.reports.save("run-1", "attempt", reports)
        assert destination.reports.read("run-1") == {"attempt": reports}


def test_a_row_that_grows_beyond_a_request_is_named_with_its_coordinate(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, tmp_path: Any
) -> None:
    """Two bytes of JSON become sixteen of a NUMERIC."""
    import json

    file = tmp_path / "schema.json"
    fields = [
        {"name": name, "type": kind, "mode": "REQUIRED"}
        for name, kind in (("transaction_id", "STRING"), ("event_time", "TIMESTAMP"))
    ]
    file.write_text(json.dumps([*fields, {"name": "many", "type": "NUMERIC", "mode": "REPEATED"}]))
    schema = load_schema(str(file))
    kafka.create("payments", 1)
    large = (
        b'{"transaction_id":"large","event_time":"2026-09-21T14:13:20Z","many":['
        + b"1," * 1_300_000
        + b"1]}"
    )
    kafka.send("payments", 0, b'{"transaction_id":"a","event_time":"2026-09-21T14:13:20Z"}', large)
    settings = bigquery(stand_in, schema=schema, max_record_bytes=8 << 20)
    with pytest.raises(Exception, match="--reject_records=payments:0:1: exactly those records"):
        run(settings)
    run(
        bigquery(
            stand_in,
            schema=schema,
            max_record_bytes=8 << 20,
            reject_records={("payments", 0): (1,)},
        )
    )
    assert stand_in.sql("SELECT transaction_id FROM payment_transactions") == [("a",)]
    assert stand_in.sql("SELECT reason FROM rejected_records") == [("refused_by_destination",)]


def test_rejected_records_of_any_time_make_no_partition_of_their_own(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    """A table holds 10,000 partitions, and a producer can write any time into a message."""
    kafka.create("payments", 1)
    kafka.send(
        "payments",
        0,
        payment("a"),
        *(payment(f"x{number}", NOW_US + (number + 400) * 86_400_000_000) for number in range(20)),
    )
    run(bigquery(stand_in))
    with opened(stand_in) as destination:
        (partitioned,) = [
            destination.tables._get(name).time_partitioning.field for name in ("control_totals",)
        ]
    assert partitioned is None


# Connections.


def test_more_streams_than_a_connection_carries_are_written_all_the_same(
    stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bigquery_streams, "MAX_CONNECTIONS", 3)
    with opened(stand_in) as destination:
        destination.tables.create(load_schema(None))
        streams = [destination.streams.create(GAPS) for _ in range(8)]
        in_flight = [
            destination.streams.send(stream, offset, rows(offset))
            for offset in range(3)
            for stream in streams
        ]
        open_now = [
            connection
            for connection in destination.streams._connections.values()
            if connection.is_open
        ]
        assert len(open_now) <= 3
        assert [append.wait() for append in in_flight] == [1] * 8 + [2] * 8 + [3] * 8
        assert [destination.streams.finalize(stream) for stream in streams] == [3] * 8


@pytest.mark.parametrize("most", [6, 7, 8])
def test_no_connection_is_closed_while_there_is_room(
    stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(bigquery_streams, "MAX_CONNECTIONS", most)
    connected = stand_in.faults.hook("AppendRows.connect", lambda _call: None, times=99)
    with opened(stand_in) as destination:
        destination.tables.create(load_schema(None))
        streams = [destination.streams.create(GAPS) for _ in range(6)]
        for offset in range(2):
            for stream in streams:
                assert destination.streams.send(stream, offset, rows(offset)).wait() == offset + 1
    assert connected.hits == 6


def test_where_room_was_made_every_stream_keeps_its_connection(
    stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight streams in turn, three connections a channel: three channels, none of them too full."""
    monkeypatch.setattr(bigquery_streams, "MAX_CONNECTIONS", 3)
    opened_calls = stand_in.faults.hook("AppendRows.connect", lambda _call: None, times=99)
    with opened(stand_in) as destination:
        destination.tables.create(load_schema(None))
        destination.streams.make_room(8)
        streams = [destination.streams.create(GAPS) for _ in range(8)]
        for offset in range(3):
            in_flight = [
                destination.streams.send(stream, offset, rows(offset)) for stream in streams
            ]
            assert [append.wait() for append in in_flight] == [offset + 1] * 8
        assert opened_calls.hits == 8
        channels = destination.streams._channels
        assert Counter(channels._channel_of.values()) == {0: 3, 1: 3, 2: 2}
        assert destination.streams.finalize(streams[0]) == 3
        more = destination.streams.create(GAPS)
        assert destination.streams.send(more, 0, rows(0)).wait() == 1
        assert Counter(channels._channel_of.values()) == {0: 3, 1: 3, 2: 2}


def test_time_to_try_again_counts_from_the_first_failure_and_not_from_when_the_connection_was_made(
    stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service closes a connection that was idle for ten minutes: just then there must be time
    left for another one.
    """
    clock = [0.0]
    monkeypatch.setattr(
        AppendConnection.__init__,
        "__defaults__",
        (lambda: RetryPolicy(clock=lambda: clock[0], sleep=lambda _: None),),
    )
    with opened(stand_in) as destination:
        destination.tables.create(load_schema(None))
        stream = destination.streams.create(GAPS)
        assert destination.streams.send(stream, 0, rows(0)).wait() == 1
        clock[0] += 10 * bigquery_retry.DEADLINE_SECONDS
        stand_in.faults.fail("AppendRows", grpc.StatusCode.ABORTED)
        assert destination.streams.send(stream, 1, rows(1)).wait() == 2


def test_an_error_that_is_told_twice_is_not_taken_for_the_next_append(
    stand_in: BigQueryStandIn,
) -> None:
    """After a lost acknowledgement: the first answer proves the first append, the second one
    nothing.
    """
    with opened(stand_in) as destination:
        destination.tables.create(load_schema(None))
        stream = destination.streams.create(GAPS)
        stand_in.faults.lose_answer("AppendRows")
        stand_in.faults.answer_twice(nth=2)
        first, second = (
            destination.streams.send(stream, 0, rows(0)),
            destination.streams.send(stream, 1, rows(1)),
        )
        assert (first.wait(), second.wait()) == (1, 2)
        assert destination.streams.finalize(stream) == 2


# What others did to the tables.


def test_tables_and_datasets_that_let_rows_expire_are_refused(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    fill(kafka)
    run(bigquery(stand_in))
    with opened(stand_in) as destination:
        client = destination.tables._client
        original = client.get_table

        def altered(*arguments: Any, **named: Any) -> Any:
            table = original(*arguments, **named)
            if table.table_id == "payment_transactions":
                table.time_partitioning.expiration_ms = 86_400_000
                table.require_partition_filter = True
            return table

        client.get_table = altered
        try:
            with pytest.raises(
                GuaranteeError,
                match=r"partitions of table payment_transactions expire "
                r".*requires a partition filter",
            ):
                destination.tables.create(load_schema(None))
        finally:
            client.get_table = original


def test_a_ledger_without_its_first_row_says_how_to_add_it(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    fill(kafka)
    with opened(stand_in) as destination:
        destination.tables.create(load_schema(None))
    stand_in.sql("DELETE FROM pipeline_runs")
    with pytest.raises(GuaranteeError, match=r"has no row root, .*INSERT INTO"):
        run(bigquery(stand_in))


def test_a_column_that_differs_from_ours_by_case_alone_is_refused(tmp_path: Any) -> None:
    import json

    file = tmp_path / "schema.json"
    fields = [
        {"name": name, "type": "STRING", "mode": "REQUIRED"} for name in ("id", "Transaction_ID")
    ]
    file.write_text(
        json.dumps([*fields, {"name": "event_time", "type": "TIMESTAMP", "mode": "REQUIRED"}])
    )
    with pytest.raises(UsageError, match="--dedup_key=id becomes the column transaction_id"):
        load_schema(str(file), dedup_key="id")


def test_genesis_is_nobodys_own_by_its_name(stand_in: BigQueryStandIn) -> None:
    """Every claim of genesis bears the same run_id, so finding it proves nothing."""
    from tests.unit.destinations.contract.run_ledger import record

    with opened(stand_in) as destination:
        assert isinstance(destination, BigQueryDestination)
        destination.tables.create(load_schema(None))
        assert destination.runs.claim(record(GENESIS, None, COMMITTED))
        assert not destination.runs.claim(record(GENESIS, None, COMMITTED))
