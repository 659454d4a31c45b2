"""What a stop hands over, what bounded runs make of it, and how `check` judges both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline import preflight as preflight_module
from pipeline.check.command import check
from pipeline.check.result import FAILED, NOTED, PASSED
from pipeline.run.command import run_until_caught_up
from pipeline.run.every import Since
from pipeline.run.outcome import Outcome
from pipeline.run.summary import print_summary
from pipeline.streaming.records import nothing_read
from tests.faults.dying import die_while_committing
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka
from tests.support.payments import MINUTE
from tests.support.streaming.destination import DESTINATIONS, duckdb_destination, expire, tamper
from tests.support.streaming.faults import Kill, Killed
from tests.support.streaming.hand_over import Tables
from tests.support.streaming.keys import key_of_shard
from tests.support.streaming.log import HORIZON, TOPIC, Sent
from tests.support.streaming.oracle import compare, gaps_of, rows_of
from tests.support.streaming.runner import read_to_the_end
from transforms.destinations.contract.ownership import (
    BEGIN,
    Ownership,
    owner_of,
    ownership_of,
    with_ownership,
)
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS, RunRecord
from transforms.model.errors import GuaranteeError
from transforms.stream.gaps import Gap

GAP = Sent(None, 0, gap=True)


@pytest.fixture(params=DESTINATIONS)
def destination(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    with DESTINATIONS[request.param](tmp_path) as opened:
        yield opened


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Any]:
    with duckdb_destination(tmp_path) as opened:
        yield opened


def results(tables: Tables) -> dict[str, tuple[str, str]]:
    """Name -> status and figure."""
    return {one.name: (one.status, one.figure) for one in check(tables.real, None, 100.0, 400)}


def totals_of(tables: Tables, partition: int, end: int) -> Any:
    return tables.real.rows.present_totals([(TOPIC, partition, 0, end)], "amount", "currency")


def with_a_hole(destination: Any, kafka: InMemoryKafka, *, more: int = 0) -> tuple[Tables, int]:
    """Five records, of which one shard has written its two of the first four; the first hole.

    more: further records of which Kafka has none yet.
    """
    keys = [key_of_shard(offset % 2, 2, after=offset) for offset in range(5 + more)]
    tables = Tables(destination, kafka, [[Sent(key, 0) for key in keys]], offered=[5])
    attempt = tables.attempt(tables.begin(), kill=Kill("send", 0, after=True))
    with pytest.raises(Killed):
        attempt.bundle([(0, 4)])
    tables.network.deliver(9)
    present = sorted(offset for rows in rows_of(destination).values() for (_, offset), _ in rows)
    assert present in ([0, 2], [1, 3])
    return tables, 1 - present[0]


# Totals.


def test_owed_totals_are_written_and_no_window_is_unobserved(
    destination: Any, kafka: InMemoryKafka
) -> None:
    tables = Tables(destination, kafka, [[Sent("a", 0), Sent("b", MINUTE), Sent("a", 0)]])
    tables.attempt(tables.begin()).bundle([(0, 2)])
    owed = totals_of(tables, 0, 2)
    assert owed.num_rows
    assert tables.stop(owed=owed).unobserved == []
    # A job that begins counts the rows of the stop's stream among those that streams have taken.
    read_to_the_end(tables.attempt(tables.begin()))
    assert tables.stop().unobserved == []
    assert results(tables)["control totals add up to the tables"][0] == "passed"
    compare(destination, tables.log)


def test_owed_totals_that_are_not_what_the_tables_lack_are_not_written(
    destination: Any, kafka: InMemoryKafka
) -> None:
    """A worker that was believed dead has written behind the savepoint."""
    tables = Tables(destination, kafka, [[Sent("a", 0), Sent("b", MINUTE), Sent("c", 0)]])
    attempt = tables.attempt(tables.begin())
    attempt.bundle([(0, 2)])
    owed = totals_of(tables, 0, 2)
    attempt.bundle([(0, 1)])
    stopped = tables.stop(owed=owed)
    assert stopped.unobserved == ["1970-01-01 00:00:00"], "the other window is complete"
    assert tables.failures() == []


def test_a_lost_job_leaves_its_open_windows_unobserved(file: Any, kafka: InMemoryKafka) -> None:
    tables = Tables(file, kafka, [[Sent("a", 0), Sent("b", MINUTE)]])
    tables.attempt(tables.begin()).bundle([(0, 2)])
    assert tables.stop().unobserved == ["1970-01-01 00:00:00", "1970-01-01 00:01:00"]
    assert results(tables)["windows that nobody observed as a whole"][0] == NOTED
    assert tables.failures() == []


# Gaps.


def test_pending_gaps_are_written_once_and_the_position_is_behind_them(
    destination: Any, kafka: InMemoryKafka
) -> None:
    log = [[Sent("a", 0), GAP, GAP, Sent("b", 0), GAP]]
    tables = Tables(destination, kafka, log)
    tables.attempt(tables.begin()).bundle([(0, 1)])
    gaps = [Gap(TOPIC, 0, 1, 2, "no_record"), Gap(TOPIC, 0, 2, 2, "no_record")]
    stopped = tables.stop(pending_gaps=gaps)
    assert gaps_of(destination) == [(0, 1), (0, 2)]
    (part,) = stopped.record.partitions
    assert (part.to_offset, part.records, part.gap_offsets) == (3, 1, 2)
    read_to_the_end(tables.attempt(tables.begin()))
    tables.stop(pending_gaps=gaps)
    compare(destination, tables.log)
    assert tables.failures() == []


def test_no_pending_gap_is_written_where_a_row_is(file: Any, kafka: InMemoryKafka) -> None:
    tables, hole = with_a_hole(file, kafka)
    tables.stop(pending_gaps=[Gap(TOPIC, 0, hole, hole + 1, "no_record")])
    assert gaps_of(file) == [(0, hole)]


def test_a_run_does_not_cut_a_gap_that_a_job_has_written(file: Any, kafka: InMemoryKafka) -> None:
    tables = Tables(file, kafka, [[Sent("a", 0), Sent("b", 0), GAP, GAP, GAP, Sent("c", 0)]])
    tables.begin()
    tables.stop(pending_gaps=[Gap(TOPIC, 0, 2, 4, "no_record")])
    records = tables.run(max_records_per_run=3)
    assert [record.partitions[0].to_offset for record in records] == [5, 6]
    compare(file, tables.log)
    assert tables.failures() == []


# What is present above the position.


def test_what_is_passed_over_is_counted_and_its_event_times_too(
    file: Any, kafka: InMemoryKafka
) -> None:
    tables, hole = with_a_hole(file, kafka, more=1)
    stopped = tables.stop()
    assert stopped.record.partitions[0].to_offset == hole
    owned = ownership_of(stopped.record)
    assert owned is not None
    assert owned.ends_above() == {(TOPIC, 0): 4 - hole}
    tables.offer([6])
    (record,) = tables.run()
    assert record.partitions[0].records == 6 - hole
    assert record.partitions[0].watermark == -HORIZON
    assert sum(table.rows for table in record.tables if table.table != "control_totals") == 6 - hole
    compare(file, tables.log)
    assert tables.failures() == []


def test_the_summary_counts_what_the_job_has_written_apart(
    file: Any, kafka: InMemoryKafka, capsys: pytest.CaptureFixture[str]
) -> None:
    tables, hole = with_a_hole(file, kafka, more=1)
    passed = 2 - hole
    tables.stop()
    tables.offer([6])
    outcome, since = Outcome(), Since()
    outcome.committed += run_until_caught_up(tables.config(), tables.real, lambda: NOW_US, outcome)
    since.add(outcome)
    figures = outcome.figures()
    assert (figures["accepted"], figures["passed_over"]) == (4, {"payment_transactions": passed})
    assert since.figures()["accepted"] == 4
    print_summary(figures, as_json=False)
    printed = capsys.readouterr().out
    assert f"a streaming job had written them: {passed} payment_transactions" in printed
    assert "accepted 4 " in printed
    assert list(run_until_caught_up(tables.config(), tables.real, lambda: NOW_US)) == []


def test_a_run_that_died_after_a_stop_and_whose_streams_have_expired_is_repaired(
    file: Any, kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of the visible rows the job has written, and counted, is not known any more."""
    tables, _ = with_a_hole(file, kafka)
    tables.stop()
    die_while_committing(1, tables.run, monkeypatch)
    expire(file)
    tables.run()
    compare(file, tables.log)
    assert tables.failures() == []
    assert tables.real.runs.read()[-1].status == COMMITTED


# What `check` says.


def test_a_destination_that_only_a_job_has_written_to_is_judged(
    destination: Any, kafka: InMemoryKafka
) -> None:
    tables = Tables(destination, kafka, [[Sent("a", 0), Sent("a", 0), Sent("b", MINUTE)]])
    begun = tables.begin()
    tables.attempt(begun).bundle([(0, 3)])
    found = results(tables)
    assert [name for name, (status, _) in found.items() if status == FAILED] == []
    assert begun.job.job_id in found["owner of the tables"][1]
    assert found["windows that are still open"][0] == NOTED
    tables.stop()
    found = results(tables)
    assert "bounded runs" in found["owner of the tables"][1]
    # The ledger does not know it; 0 ids that "passed" would look like a job that forgets.
    assert found["state size"] == (
        NOTED,
        "not known here of a streaming job; `status --flink_master=HOST:PORT` shows it",
    )


def test_a_rate_of_no_records_has_not_passed(destination: Any, kafka: InMemoryKafka) -> None:
    tables = Tables(destination, kafka, [[Sent("a", 0), Sent("b", 0)]])
    tables.attempt(tables.begin()).bundle([(0, 2)])

    def rate() -> str:
        found = check(tables.real, None, 100.0, 400, 0.1)
        return next(one.status for one in found if one.name == "rejected records")

    assert rate() == NOTED
    tables.stop()
    assert rate() == PASSED


def test_a_row_that_is_there_twice_is_found_while_a_job_owns_the_tables(
    file: Any, kafka: InMemoryKafka
) -> None:
    tables = Tables(file, kafka, [[Sent("a", 0), Sent("b", 0), Sent("c", 0)]])
    tables.attempt(tables.begin()).bundle([(0, 3)])
    tamper(file, "INSERT INTO payment_transactions SELECT * FROM payment_transactions LIMIT 1")
    failed = {one.name for one in tables.failures()}
    assert {
        "no coordinate twice over the three tables",
        "COUNT(DISTINCT transaction_id) = COUNT(*)",
    } <= failed


def test_totals_above_the_tables_are_found_while_a_job_owns_them(
    file: Any, kafka: InMemoryKafka
) -> None:
    tables = Tables(file, kafka, [[Sent("a", 0), Sent("b", 0)]])
    read_to_the_end(tables.attempt(tables.begin()))
    tamper(file, "DELETE FROM payment_transactions WHERE transaction_id = 'a'")
    assert "control totals add up to the tables" in {one.name for one in tables.failures()}


def test_a_row_that_vanished_below_the_position_of_a_stop_is_found(
    file: Any, kafka: InMemoryKafka
) -> None:
    tables = Tables(file, kafka, [[Sent("a", 0), Sent("b", 0)]])
    read_to_the_end(tables.attempt(tables.begin()))
    tables.stop()
    tamper(file, "DELETE FROM payment_transactions WHERE transaction_id = 'a'")
    assert "no coordinate missing" in {one.name for one in tables.failures()}


def test_a_row_above_what_a_stop_has_found_is_found(file: Any, kafka: InMemoryKafka) -> None:
    tables = Tables(file, kafka, [[Sent("a", 0), Sent("b", 0)]])
    read_to_the_end(tables.attempt(tables.begin()))
    tables.stop()
    tamper(file, "UPDATE payment_transactions SET kafka_offset = 9 WHERE transaction_id = 'b'")
    assert "no row that no run has read" in {one.name for one in tables.failures()}


@pytest.mark.parametrize(("apart", "status"), [(MINUTE, NOTED), (MINUTE - 1, FAILED)])
def test_a_second_payment_of_a_job_fails_where_its_id_cannot_have_expired(
    file: Any, kafka: InMemoryKafka, apart: int, status: str
) -> None:
    """How far the watermark had come is not in the tables: it may have passed the first one."""
    log = [[Sent("a", 0), Sent("b", apart + HORIZON), Sent("c", apart + HORIZON)]]
    tables = Tables(file, kafka, log)
    read_to_the_end(tables.attempt(tables.begin()))
    second = f"make_timestamp({apart}::BIGINT)"
    tamper(
        file,
        "UPDATE payment_transactions SET transaction_id = 'a', event_time ="
        f" {second} WHERE transaction_id = 'c'",
    )
    found = results(tables)
    name = {
        NOTED: "ids that came again beyond the dedup horizon",
        FAILED: "COUNT(DISTINCT transaction_id) = COUNT(*)",
    }[status]
    assert found[name][0] == status
    if status == NOTED:
        assert found["COUNT(DISTINCT transaction_id) = COUNT(*)"][0] == "passed"


# preflight, and old ledgers.


def test_preflight_refuses_what_a_run_refuses(
    tmp_path: Path, kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "KafkaAdmin", kafka)
    with duckdb_destination(tmp_path) as destination:
        tables = Tables(destination, kafka, [[Sent("a", 0)]])
        tables.begin()
        with pytest.raises(GuaranteeError) as refused:
            tables.run()
        settings = tables.config(destination=destination.name)
        failed = [
            result.figure
            for result in preflight_module.preflight(settings, lambda: NOW_US)
            if result.status == FAILED
        ]
    assert refused.value.message in failed


def test_records_of_versions_that_could_not_stream_are_records_of_bounded_runs() -> None:
    part = nothing_read("t", 0, None, 5, None, 0)
    old = RunRecord(
        run_id=GENESIS, predecessor=None, status=COMMITTED, plan_time=0, cluster_id=None,
        partitions=[part], tables=[], lowest_watermark=None, live_ids=0, state_bytes=0,
        settings={"topics": ["t"]},
    )  # fmt: skip
    assert ownership_of(old) is None
    assert owner_of([old]) is None
    assert owner_of([]) is None


def test_what_a_record_of_ownership_holds_is_frozen() -> None:
    ownership = Ownership(
        kind=BEGIN, job_id="job", generation=3, since_us=5, begun_us=4, above=(("t", 0, 9),),
        turns=(("job",),),
    )  # fmt: skip
    assert with_ownership({"topics": []}, ownership) == {
        "topics": [],
        "ownership": {
            "kind": "begin", "job_id": "job", "generation": 3, "since_us": 5, "begun_us": 4,
            "restores": None, "above": [["t", 0, 9]], "not_in_totals": 0, "turns": [["job"]],
        },
    }  # fmt: skip
