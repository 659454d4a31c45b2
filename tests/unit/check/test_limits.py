"""Limits: what `check --max_rejected_rate` judges, and the exit status of a limit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.check.command import check, check_command
from pipeline.check.result import FAILED, PASSED, CheckResult
from tests.support.bigquery import bigquery
from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
)
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.open import open_destination

REJECTED = "rejected records"
MILLIS = b'{"transaction_id":"m","event_time":1790000000000,"amount":"1","currency":"EUR"}'


def rejected(path: Path, rate: float = 0.1) -> CheckResult | None:
    with DuckDBDestination(str(path)) as destination:
        found = {result.name: result for result in check(destination, None, 100.0, 400, rate)}
    assert {name for name, result in found.items() if result.status == FAILED} <= {REJECTED}
    return found.get(REJECTED)


def send(kafka: InMemoryKafka, good: int, bad: int, bad_value: Any = b"broken") -> None:
    """Good payments, then bad ones, in this order; ids are never used twice."""
    start = len(kafka.topics["payments"].partitions[0].records)
    kafka.send("payments", 0, *(payment(f"{start + number}") for number in range(good)))
    kafka.send("payments", 0, *([bad_value] * bad))


@pytest.fixture
def one_topic(kafka: InMemoryKafka) -> InMemoryKafka:
    kafka.create("payments", 1)
    return kafka


def test_a_topic_without_any_payment_is_judged_from_its_first_record(
    one_topic: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    send(one_topic, 0, 3, MILLIS)
    send(one_topic, 0, 1)
    run(config(path))
    arguments = [f"--destination=duckdb:{path}", "--json"]
    assert check_command(arguments) == 6
    found = {result["name"]: result for result in json.loads(capsys.readouterr().out)}[REJECTED]
    assert (found["status"], found["kind"]) == (FAILED, "limit")
    assert "payments: 4 of the newest 4 records (100.00%)" in found["figure"]
    assert "--max_rejected_rate" in found["figure"]
    first, second = found["proof"]
    assert (first["reason"], first["records"], first["example"]) == (
        "wrong_type",
        3,
        "payments:0:0",
    )
    assert second["reason"] == "invalid_json"
    assert check_command([*arguments, "--max_rejected_rate=1"]) == 0
    assert check_command([*arguments, "--max_rejected_rate=0.999"]) == 6
    assert rejected(path, 1.0) is None


def test_a_topic_with_a_payment_is_judged_from_a_thousand_records_on(
    one_topic: InMemoryKafka, path: Path
) -> None:
    send(one_topic, 10, 500)
    run(config(path))
    found = rejected(path)
    assert found is not None and found.status == PASSED
    assert "not judged: payments" in found.figure
    send(one_topic, 0, 490)
    run(config(path))
    found = rejected(path)
    assert found is not None and found.status == FAILED
    assert "payments: 990 of the newest 1,000 records (99.00%)" in found.figure


@pytest.mark.parametrize("max_records_per_run", [1_000_000, 700])
def test_the_newest_records_count_whatever_came_before_them(
    one_topic: InMemoryKafka, path: Path, max_records_per_run: int
) -> None:
    send(one_topic, 3_000, 200)
    run(config(path, max_records_per_run=max_records_per_run))
    found = rejected(path)
    assert found is not None and found.status == FAILED
    assert "200 of the newest 1,000 records (20.00%)" in found.figure
    assert rejected(path, 0.2) == CheckResult(
        REJECTED,
        PASSED,
        "at most 20.00% of a topic's newest 1,000 records, allowed 20.00% (--max_rejected_rate)",
        kind="limit",
    )
    send(one_topic, 1_000, 0)
    run(config(path))
    found = rejected(path)
    assert found is not None and found.status == PASSED


def test_records_without_a_value_do_not_count_and_late_ones_do(
    one_topic: InMemoryKafka, path: Path
) -> None:
    send(one_topic, 600, 400, None)
    send(one_topic, 100, 0)
    run(config(path))
    assert "at most 0.00%" in str(rejected(path))
    send(one_topic, 50, 100, payment("late", NOW_US - 3 * HOUR_US))
    run(config(path))
    found = rejected(path)
    assert found is not None and found.status == FAILED
    # 1,000 records: 150 of the second run, 850 of the first, of which 400 have no value.
    assert "100 of the newest 600 records (16.67%)" in found.figure


def test_records_that_a_person_named_do_not_count(one_topic: InMemoryKafka, path: Path) -> None:
    send(one_topic, 5, 0)
    run(config(path, reject_records={("payments", 0): (0, 1, 2, 3, 4)}))
    found = rejected(path)
    assert found is not None and found.status == PASSED


def test_gaps_are_no_records(one_topic: InMemoryKafka, path: Path) -> None:
    for number in range(1_500):
        bad = number >= 1_400
        one_topic.send("payments", 0, b"broken" if bad else payment(f"{number}"), MARKER, MARKER)
    run(config(path))
    found = rejected(path, 0.05)
    assert found is not None and found.status == FAILED
    assert "100 of the newest 1,000 records (10.00%)" in found.figure


def test_each_topic_is_judged_by_itself(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.create("refunds", 2)
    send(kafka, 3_000, 0)
    for partition in range(2):
        kafka.send("refunds", partition, *([MILLIS] * 30))
    run(config(path, topics=("payments", "refunds")))
    found = rejected(path)
    assert found is not None and found.status == FAILED
    assert found.figure.startswith("refunds: 60 of the newest 60 records (100.00%), allowed")


def test_bigquery_judges_the_same(
    kafka: InMemoryKafka, request: pytest.FixtureRequest, path: Path
) -> None:
    kafka.create("payments", 2)
    send(kafka, 1_500, 0)
    kafka.send("payments", 1, *([MILLIS, b"broken", MARKER, None] * 100), payment("one"))
    found = []
    for settings in (config(path), bigquery(request.getfixturevalue("stand_in"))):
        run(settings)
        with open_destination(settings.destination, **settings.destination_options) as destination:
            found += [
                result
                for result in check(destination, None, 100.0, 400, 0.1)
                if result.name == REJECTED
            ]
    assert found[0] == found[1] and found[0].status == FAILED
    assert {row["records"] for row in found[0].proof} != set()
