"""`preflight` refuses what `run` would refuse, shows what it would reject, and changes nothing."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline import preflight as preflight_module
from pipeline.check.result import FAILED, LATER, NOTED, PASSED, CheckResult
from pipeline.newest_records import SAMPLE_RECORDS
from pipeline.options.config import LATEST, AdoptTopic, RunConfig, Start, StreamingConfig
from pipeline.options.schema_file import load_schema
from pipeline.preflight import preflight, preflight_command
from pipeline.streaming.begin import begin_streaming
from tests.faults.dying import die_after
from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    NOW_US,
    InMemoryKafka,
    Partition,
    config,
    payment,
    run,
    table,
)
from tests.support.refusals import REFUSALS, Refusal
from tests.support.whole_runs import IDS, expire
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.tables import DuckDBTables
from transforms.model.errors import GuaranteeError

RATE = {"max_rejected_rate": 0.1}


@pytest.fixture
def kafka(kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch) -> InMemoryKafka:
    monkeypatch.setattr(preflight_module, "KafkaAdmin", kafka)
    kafka.create("payments", 1)
    return kafka


def asked(settings: RunConfig, now_us: int = NOW_US) -> dict[str, CheckResult]:
    return {result.name: result for result in preflight(settings, lambda: now_us)}


def refusals(settings: RunConfig) -> list[str]:
    return [
        result.figure for result in asked(settings).values() if result.status in (FAILED, LATER)
    ]


def broken(kafka: InMemoryKafka) -> dict[str, Any]:
    kafka.create("refunds", 1)
    kafka.send("refunds", 0, b"broken")
    return {"topics": ("payments", "refunds"), **RATE}


def streaming(**changes: Any) -> StreamingConfig:
    job = StreamingConfig(
        topic_pattern=None, restore=None, from_tables=False, detach=False,
        flink_master="localhost:8081", in_this_process=True, parallelism=1, shards_given=False,
    )  # fmt: skip
    return replace(job, **changes)


ALL: dict[str, Refusal] = {**REFUSALS, "a topic that is rejected as a whole": broken}


@pytest.mark.parametrize("why", ALL)
def test_it_refuses_what_a_run_refuses_in_the_same_words(
    kafka: InMemoryKafka, path: Path, why: str
) -> None:
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    assert refusals(config(path)) == []
    settings = config(path, **ALL[why](kafka))
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    (found,) = refusals(settings)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    with pytest.raises(GuaranteeError) as refused:
        run(settings)
    assert refused.value.message.splitlines()[0] in found


def test_it_counts_write_streams_as_a_run_does_also_the_first_one(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DuckDBDestination, "streams_per_hour", 50)
    kafka.send("payments", 0, *(payment(f"b{number}") for number in range(9)))
    (found,) = refusals(config(path, max_records_per_run=1))
    assert "--max_records_per_run=" in found
    assert not path.exists()


def test_it_says_how_much_waits(kafka: InMemoryKafka, path: Path) -> None:
    kafka.send("payments", 0, *(payment(f"b{number}") for number in range(9)))
    results = asked(config(path, max_records_per_run=4))
    assert results["the plan"].figure == "9 offsets wait, in 3 transactions"
    assert "not there yet" in results["the ledger"].figure
    assert not path.exists()
    assert preflight_command(config(path), lambda: NOW_US) == 0


def test_of_a_streaming_job_it_says_neither_transactions_nor_a_rate_that_stops_it(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.send("payments", 0, b"broken", payment("a"))
    results = asked(config(path, streaming=streaming(), **RATE))
    assert results["the plan"].figure == "2 offsets wait"
    newest = results["newest records of payments"]
    assert newest.status == NOTED
    assert "a bounded run would stop: topic payments: 1 of 2" in newest.figure
    assert "consumer group" not in results


def test_a_job_that_owns_the_tables_refuses_no_job_that_takes_them_over(
    kafka: InMemoryKafka, path: Path
) -> None:
    with DuckDBDestination(path) as destination:
        begun = begin_streaming(config(path), destination, kafka, lambda: NOW_US)
    for settings in (streaming(from_tables=True), streaming(restore="latest")):
        assert refusals(config(path, streaming=settings)) == []
    (found,) = refusals(config(path, streaming=streaming()))
    assert begun.job.job_id in found


def test_it_shows_what_is_adopted_and_changes_nothing(kafka: InMemoryKafka, path: Path) -> None:
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.create("payments", 1, topic_id="new")
    kafka.send("payments", 0, payment("a"), payment("b"))
    (found,) = refusals(config(path))
    assert "--adopt_topic=payments@new --on_data_loss=accept" in found
    flag = AdoptTopic("payments", "new")
    settings = config(path, adopt_topics=(flag,), on_data_loss="accept")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    results = asked(settings)
    assert refusals(settings) == []
    assert "payments goes on as payments#2" in results["adopted topic"].figure
    assert "2 payments or copies" in results["newest records of payments#2"].figure
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    run(settings)
    assert "adopted topic" not in asked(settings)
    assert refusals(config(path)) == []


def test_an_adoption_that_waits_for_its_repair_is_no_refusal(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config(path))
    kafka.create("payments", 1, topic_id="new")
    kafka.send("payments", 0, payment("a"), payment("a"))
    flag = AdoptTopic("payments", "new")
    die_after(1, path, monkeypatch, adopt_topics=(flag,), on_data_loss="accept")
    expire(path)
    assert refusals(config(path)) == []
    run(config(path))
    assert table(path, IDS) == [("a",)]


# What would happen to the newest records.


def test_the_newest_records_are_judged_as_a_run_would_judge_them(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.topics["payments"].partitions.append(Partition())
    values = [
        payment("late", NOW_US - 9 * HOUR_US),
        payment("ahead", NOW_US + HOUR_US),
        b"broken", None, MARKER, b"broken",
        payment("b"), payment("c"),
    ]  # fmt: skip
    kafka.send("payments", 1, *values, timestamp_us=NOW_US)
    result = asked(config(path))["newest records of payments"]
    assert result.status == PASSED
    assert result.figure.startswith("of 8 ") and "3 payments or copies, 5 rejected" in result.figure
    first = result.proof[0]
    assert (first["records"], first["reason"]) == (2, "invalid_json")
    assert (first["example"], first["value"]) == ("payments:1:2", "broken")
    assert {row["reason"] for row in result.proof} == {
        "late",
        "future_event_time",
        "invalid_json",
        "null_value",
    }
    json.dumps(result.proof)
    assert table(path, IDS) == [("a",)]


def test_only_so_many_of_each_partition_are_read_and_none_that_is_deleted(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.topics["payments"].partitions.append(Partition())
    kafka.send("payments", 0, *[b"old"] * 50, *[payment("a")] * SAMPLE_RECORDS)
    kafka.send("payments", 1, b"deleted", payment("b"))
    kafka.topics["payments"].partitions[1].deleted = 1
    result = asked(config(path, **RATE))["newest records of payments"]
    assert result.figure.startswith(f"of {SAMPLE_RECORDS + 1} ")
    assert result.status == PASSED and result.proof == []


def test_an_empty_topic_has_nothing_to_be_judged(kafka: InMemoryKafka, path: Path) -> None:
    assert asked(config(path, **RATE))["newest records of payments"].status == NOTED


def test_a_topic_of_another_format_is_refused_before_its_first_run(
    kafka: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    value = b'{"transaction_id":"a","event_time":1790000000000,"amount":"1","currency":"EUR"}'
    kafka.send("payments", 0, *[value] * 3)
    assert preflight_command(config(path, json=False, **RATE), lambda: NOW_US) == 3
    printed = capsys.readouterr().out
    assert "3 of 3 (100.0%)" in printed and "wrong_type" in printed and "1790000000000" in printed
    assert not path.exists()


def test_what_is_broken_but_read_already_refuses_no_run(kafka: InMemoryKafka, path: Path) -> None:
    kafka.send("payments", 0, *[b"broken"] * 3)
    run(config(path))
    result = asked(config(path, **RATE))["newest records of payments"]
    assert result.status == NOTED and "3 of 3" in result.figure


# Warnings.


def test_a_missing_right_on_the_group_is_a_warning(kafka: InMemoryKafka, path: Path) -> None:
    kafka.group_denied = "Kafka denies this user the consumer group mine"
    result = asked(config(path))["consumer group"]
    assert result.status == NOTED
    assert "warning" in result.figure and "--group_id" in result.figure
    assert preflight_command(config(path), lambda: NOW_US) == 0


def test_a_group_that_cannot_be_looked_up_is_a_warning(kafka: InMemoryKafka, path: Path) -> None:
    kafka.group_unknown = True
    result = asked(config(path))["consumer group"]
    assert result.status == NOTED and "cannot be looked up" in result.figure


def test_topics_that_are_not_named_are_listed(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("refunds", 1)
    run(config(path, topics=("payments", "refunds")))
    kafka.send("refunds", 0, payment("a"), payment("b"))
    result = asked(config(path))["not named by --topic"]
    assert (result.status, result.figure) == (NOTED, "refunds, 2 offsets wait")


def test_a_start_that_has_no_effect_is_noted(kafka: InMemoryKafka, path: Path) -> None:
    first = config(path, start=Start(LATEST, given="latest"))
    assert "--start" not in asked(first)
    run(first)
    result = asked(first)["--start"]
    assert (result.status, result.figure.partition(" ")[0]) == (NOTED, "--start=latest")
    assert "--start" not in asked(config(path))


def test_a_dead_run_is_noted_and_left_for_the_run_to_finish(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.send("payments", 0, payment("a"), payment("b"))
    die_after(0, path, monkeypatch)
    kafka.send("payments", 0, payment("c"))
    results = asked(config(path))
    assert results["an earlier run"].status == NOTED
    assert results["the plan"].figure.startswith("1 offset waits")
    assert FAILED not in [result.status for result in results.values()]
    assert table(path, "SELECT status FROM pipeline_runs WHERE run_id <> 'genesis'") == [
        ("PREPARED",)
    ]
    run(config(path))
    assert table(path, IDS) == [("a",), ("b",), ("c",)]


def test_tables_that_the_first_run_makes_anew_are_no_refusal(
    kafka: InMemoryKafka, path: Path
) -> None:
    run(config(path))
    schema = load_schema(None)
    other = config(path, schema=replace(schema, fields=schema.fields[:4]))
    assert "makes them anew" in asked(other)["tables"].figure
    assert refusals(other) == []
    kafka.send("payments", 0, payment("a"))
    run(other)
    assert table(path, IDS) == [("a",)]


def test_while_tables_are_made_anew_it_refuses_as_a_run_does(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(config(path))
    schema = load_schema(None)
    other = config(path, schema=replace(schema, fields=schema.fields[:4]))

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(DuckDBTables, "make_anew", dies)
        run(other)
    (found,) = refusals(config(path))
    assert "making the empty tables anew" in found
