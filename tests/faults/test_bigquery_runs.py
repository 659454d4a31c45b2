"""Whole runs into BigQuery's stand-in: what DuckDB shows, and every call that may fail at every
step. No row lost, none twice, nothing stuck.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import grpc
import pytest

from pipeline.check.result import FAILED
from pipeline.logs import TEXT, logged
from pipeline.preflight import preflight
from pipeline.run import prepare as prepare_step
from pipeline.run.command import run_command
from tests.bigquery_stand_in import BigQueryStandIn
from tests.bigquery_stand_in.sql.statements import Outcome, Query, Statements
from tests.faults.dying import die_while_committing
from tests.support.bigquery import (
    bigquery,
    clock_of_the_runs,
    failures,
    forget_streams,
    is_right,
    statuses,
)
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    payment,
    run,
    use,
)
from tests.support.whole_runs import IDS, SENT, fill
from transforms.destinations.bigquery.clients import close_clients
from transforms.destinations.contract.run_ledger import ABORTED, COMMITTED, PREPARED
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError


def test_every_record_ends_in_one_row_and_a_second_run_changes_nothing(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    fill(kafka)
    assert len(run(bigquery(stand_in))) == 1
    is_right(stand_in)
    assert run(bigquery(stand_in)) == []
    is_right(stand_in)


@pytest.mark.parametrize("layout", ["sharded", "per_key"])
def test_copies_are_known_across_transactions_and_runs(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, layout: str
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *(payment(f"id-{number}") for number in range(10)))
    assert len(run(bigquery(stand_in, max_records_per_run=4, dedup_layout=layout))) == 3
    kafka.send(
        "payments", 0, *(payment(f"id-{number}", NOW_US + MINUTE_US) for number in range(12))
    )
    run(bigquery(stand_in, shards=3, dedup_layout=layout))
    assert stand_in.sql(
        "SELECT COUNT(*), COUNT(DISTINCT transaction_id) FROM payment_transactions"
    ) == [(12, 12)]
    assert stand_in.sql("SELECT COUNT(*) FROM duplicate_transactions") == [(10,)]
    assert failures(stand_in) == []


def test_an_id_is_forgotten_only_when_the_watermark_has_passed_its_minute(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    """A duplicate keeps its id alive although the payment itself lies before what is loaded."""
    kafka.create("payments", 1)
    first = NOW_US - 30 * HOUR_US
    for message in (
        payment("kept", first),
        payment("kept", first + 50 * MINUTE_US),
        payment("gone", first),
        payment("newer", first + 70 * MINUTE_US),
    ):
        kafka.send("payments", 0, message)
        run(bigquery(stand_in))
    kafka.send(
        "payments",
        0,
        payment("kept", first + 60 * MINUTE_US),
        payment("gone", first + 60 * MINUTE_US),
    )
    run(bigquery(stand_in))
    assert stand_in.sql(
        "SELECT transaction_id, COUNT(*) FROM payment_transactions GROUP BY 1 ORDER BY 1"
    ) == [
        ("gone", 2),
        ("kept", 1),
        ("newer", 1),
    ]
    assert failures(stand_in) == []


@pytest.mark.parametrize("commits", range(6))
def test_a_run_that_dies_while_it_becomes_visible_is_finished_by_the_next_one(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    fill(kafka)
    die_after(commits, stand_in, monkeypatch)
    run(bigquery(stand_in))
    is_right(stand_in)
    assert statuses(stand_in) == [COMMITTED]


@pytest.mark.parametrize("commits", range(6))
def test_a_run_whose_streams_expired_is_planned_again_or_repaired(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    fill(kafka)
    die_after(commits, stand_in, monkeypatch)
    forget_streams(stand_in)
    run(bigquery(stand_in))
    is_right(stand_in)
    assert statuses(stand_in) == ([COMMITTED] if commits == 5 else [ABORTED, COMMITTED])


def test_a_run_that_waits_for_days_is_finished_from_the_tables(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(kafka)
    die_after(2, stand_in, monkeypatch)
    stand_in.clock.advance(days=2)
    run(bigquery(stand_in), NOW_US + 48 * HOUR_US)
    is_right(stand_in)


def die_after(commits: int, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    die_while_committing(commits, lambda: run(bigquery(stand_in)), monkeypatch)
    assert statuses(stand_in) == [PREPARED]


CALLS = (
    "CreateWriteStream",
    "AppendRows",
    "FinalizeWriteStream",
    "BatchCommitWriteStreams",
    "jobs.insert",
    "jobs.getQueryResults",
    "tables.get",
    "tables.insert",
)
Fault = Callable[[BigQueryStandIn, str, int], Any]
FAULTS: dict[str, Fault] = {
    "cut": lambda stand_in, name, nth: stand_in.faults.cut(name, nth=nth),
    "answer lost": lambda stand_in, name, nth: stand_in.faults.lose_answer(name, nth=nth),
    "gone for good": lambda stand_in, name, nth: stand_in.faults.fail(name, _code(name), nth=nth),
    "gone for good, after": lambda stand_in, name, nth: stand_in.faults.fail(
        name, _code(name), nth=nth, after=True
    ),
}


def _code(name: str) -> Any:
    """An answer that is not tried again, so that the run dies there."""
    return 400 if "." in name else grpc.StatusCode.DATA_LOSS


@pytest.fixture(scope="module")
def number_of_calls() -> Counter[str]:
    """How often a run without faults makes each call, and how often it has by each of its steps."""
    with (
        BigQueryStandIn("payments-test", "d", clock=clock_of_the_runs()) as stand_in,
        pytest.MonkeyPatch.context() as patch,
    ):
        kafka = InMemoryKafka()
        use(kafka, patch)
        fill(kafka)
        run(bigquery(stand_in))
        close_clients()
        return Counter(stand_in.calls)


@pytest.mark.parametrize("place", ["first", "in the middle", "last"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("call", CALLS)
def test_a_fault_of_any_call_at_any_step_ends_with_the_right_tables(
    kafka: InMemoryKafka,
    stand_in: BigQueryStandIn,
    number_of_calls: Counter[str],
    call: str,
    fault: str,
    place: str,
) -> None:
    """A fault that passes is survived by the run itself; one that does not stops it, and the next
    run ends what it began.
    """
    fill(kafka)
    nth = {
        "first": 1,
        "in the middle": (number_of_calls[call] + 1) // 2,
        "last": number_of_calls[call],
    }[place]
    rule = FAULTS[fault](stand_in, call, nth)
    with suppress(Exception) if fault.startswith("gone") else nullcontext():
        run(bigquery(stand_in))
    assert rule.hits >= 1
    stand_in.faults.clear()
    run(bigquery(stand_in))
    is_right(stand_in)


def test_of_two_claims_at_one_moment_the_loser_tries_again_and_loses_for_good(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statement fails for the other one's sake, which says nothing about who has won: the next
    try does.
    """
    fill(kafka)
    original, other = prepare_step.prepare, []

    def overtaken(*arguments: Any) -> None:
        monkeypatch.setattr(prepare_step, "prepare", original)
        other.extend(run(bigquery(stand_in)))
        stand_in.faults.fail(
            "jobs.run",
            400,
            reason="invalidQuery",
            message="Could not serialize access to table due to concurrent update",
        )
        original(*arguments)

    monkeypatch.setattr(prepare_step, "prepare", overtaken)
    with pytest.raises(GuaranteeError, match="another run has followed genesis"):
        run(bigquery(stand_in))
    assert len(other) == 1
    is_right(stand_in)


def test_a_lost_answer_to_the_claim_is_read_back_by_its_job(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    fill(kafka)
    rule = stand_in.faults.lose_answer(
        "jobs.insert", when=lambda call: "MERGE" in str(call.request), nth=2
    )
    assert len(run(bigquery(stand_in))) == 1
    assert rule.hits == 1
    is_right(stand_in)


def test_a_backlog_that_needs_more_streams_than_an_hour_has_is_refused_with_what_fits(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *[payment("a")] * 1200)
    with pytest.raises(
        GuaranteeError, match=r"need up to 10800 write streams, .*--max_records_per_run=2 or more"
    ):
        run(bigquery(stand_in, max_records_per_run=1))
    assert len(run(bigquery(stand_in, max_records_per_run=400))) == 3


def test_preflight_tells_what_a_run_needs_and_writes_nothing(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: Any
) -> None:
    def clock() -> int:
        return NOW_US

    monkeypatch.setattr("pipeline.preflight.KafkaAdmin", kafka)
    fill(kafka)
    before = [result.status for result in preflight(bigquery(stand_in), clock)]
    assert FAILED not in before
    assert stand_in.calls["CreateWriteStream"] == stand_in.calls["tables.insert"] == 0
    run(bigquery(stand_in))
    assert FAILED not in [result.status for result in preflight(bigquery(stand_in), clock)]
    is_right(stand_in)
    wrong = list(preflight(bigquery(stand_in, dedup_horizon_us=MINUTE_US, topics=("none",)), clock))
    assert [result.name for result in wrong if result.status == FAILED] == [
        "Kafka at in-memory:1",
        "the ledger",
    ]
    stand_in.faults.fail("CreateWriteStream", grpc.StatusCode.PERMISSION_DENIED)
    (denied,) = [
        result for result in preflight(bigquery(stand_in), clock) if result.status == FAILED
    ]
    assert "roles/bigquery.dataEditor" in denied.figure


def test_preflight_says_that_the_clock_is_wrong(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch: Any
) -> None:
    monkeypatch.setattr("pipeline.preflight.KafkaAdmin", kafka)
    fill(kafka)
    found = preflight(bigquery(stand_in), lambda: NOW_US - HOUR_US)
    (slow,) = [result for result in found if result.status == FAILED]
    assert "1 h behind the clock of bigquery:payments-test.d" in slow.figure


@pytest.mark.parametrize(
    ("apart", "words"),
    [
        (-5 * MINUTE_US - 1, "5 min behind the clock of bigquery:payments-test.d"),
        (5 * MINUTE_US + 1, "5 min ahead of the clock of bigquery:payments-test.d"),
        (-400 * 24 * HOUR_US, "400 d behind"),
        (HOUR_US, "1 h ahead of"),
    ],
)
def test_a_clock_that_differs_from_bigquerys_own_is_refused_before_anything_starts(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, apart: int, words: str
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a", NOW_US - HOUR_US))
    with pytest.raises(GuaranteeError, match=words):
        run(bigquery(stand_in), NOW_US + apart)
    assert stand_in.calls["tables.insert"] == 0 and not stand_in.calls["CreateWriteStream"]
    run(bigquery(stand_in), NOW_US + (5 if apart > 0 else -5) * MINUTE_US)
    assert stand_in.sql(IDS) == [("a",)]


def test_a_query_that_would_read_too_much_names_the_flag(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    fill(kafka)
    run(bigquery(stand_in))
    with pytest.raises(GuaranteeError, match=r"--maximum_bytes_billed=1000 does not allow more"):
        run(bigquery(stand_in, destination_options={"max_bytes_billed": 1000}))


def test_the_bytes_billed_are_those_of_all_queries_and_no_bundle_has_a_line_of_its_own(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, monkeypatch, capsys
) -> None:
    """The cold start of a second run is asked for by a bundle, not by the driver."""
    fill(kafka)
    run(bigquery(stand_in))
    kafka.send("payments", 0, payment("new"))
    billed, answer = [], Statements.run

    def counted(statements: Statements, query: Query) -> Outcome:
        outcome = answer(statements, query)
        billed.append(outcome.bytes_billed)
        return outcome

    monkeypatch.setattr(Statements, "run", counted)
    with logged(TEXT):
        run_command(bigquery(stand_in, json=True), lambda: NOW_US)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["bytes_billed"] == sum(billed) > 0
    lines = [line.partition(": ")[2] for line in printed.err.splitlines()]
    assert [line.partition(":")[0] for line in lines] == [
        "transaction 1 of 1 begins",
        "transaction 1 of 1 is committed",
    ]


def test_tables_may_have_to_be_there_and_a_prefix_keeps_two_pipelines_apart(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    fill(kafka)
    with pytest.raises(
        GuaranteeError,
        match=r"missing: payment_transactions, .*--create_tables=if_needed creates them",
    ):
        run(bigquery(stand_in, destination_options={"create_tables": "never"}))
    run(bigquery(stand_in))
    kafka.send("payments", 0, payment("new"))
    run(bigquery(stand_in, destination_options={"create_tables": "never"}))
    run(bigquery(stand_in, destination_options={"prefix": "other_"}))
    mine, other = (
        stand_in.sql(f"SELECT COUNT(*) FROM {prefix}payment_transactions")[0][0]
        for prefix in ("", "other_")
    )
    assert mine == other == len(SENT) + 3


def test_tables_of_somebody_elses_are_refused_with_the_reason(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    fill(kafka)
    settings = bigquery(stand_in)
    with open_destination(settings.destination, **settings.destination_options) as destination:
        table = settings_table(stand_in, "payment_transactions")
        destination.queries.execute(
            f"CREATE TABLE {table} (transaction_id STRING NOT NULL, amount FLOAT64)",
            (),
            "old-table",
        )
    with pytest.raises(
        GuaranteeError,
        match=r"lacks the column\(s\) kafka_topic, .*nobody can tell which Kafka record "
        r".*column amount is FLOAT",
    ):
        run(bigquery(stand_in))


def settings_table(stand_in: BigQueryStandIn, name: str) -> str:
    return f"`payments-test.d.{name}`"
