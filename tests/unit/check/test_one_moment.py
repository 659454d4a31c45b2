"""All questions of one `check` are of one moment: a run that commits between two of them is in all
of the answers or in none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.check.command import check
from pipeline.check.result import FAILED
from pipeline.options.config import RunConfig
from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.bigquery import bigquery
from tests.support.in_memory_kafka import MARKER, InMemoryKafka, config, payment, run
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.contract.destination import Destination
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.open import open_destination


@dataclass
class InterleavedRuns:
    """Each run reads rows of every kind, into a destination that another object has open."""

    kafka: InMemoryKafka
    settings: RunConfig
    runs: int = 0

    def run(self) -> None:
        self.runs += 1
        self.kafka.send(
            "payments",
            0,
            payment(f"new {self.runs}"),
            payment("a"),
            b"broken",
            MARKER,
            payment(f"newer {self.runs}"),
        )
        assert len(run(self.settings)) == 1

    def open(self) -> AbstractContextManager[Destination]:
        return open_destination(self.settings.destination, **self.settings.destination_options)


@pytest.fixture(params=["duckdb", "bigquery"])
def runs(request: pytest.FixtureRequest, kafka: InMemoryKafka, tmp_path: Path) -> InterleavedRuns:
    kafka.create("payments", 1)
    in_a_file = request.param == "duckdb"
    settings = (
        config(tmp_path / "payments.duckdb", shards=2)
        if in_a_file
        else bigquery(request.getfixturevalue("stand_in"))
    )
    found = InterleavedRuns(kafka, settings)
    found.run()
    return found


def before_question(number: int, destination: Any, change: Callable[[], None]) -> None:
    """From now on, `change` happens before the question with this number."""
    ask, asked = destination.query, []

    def query(*question: Any) -> Any:
        asked.append(question)
        if len(asked) == number:
            change()
        return ask(*question)

    destination.query = query


def failures_with_a_run_before(number: int, runs: InterleavedRuns) -> list[str]:
    with runs.open() as destination:
        before_question(number, destination, runs.run)
        results = list(check(destination, None, 100.0, 400, 0.9))
    return [result.name for result in results if result.status == FAILED]


def test_a_run_that_commits_between_two_questions_breaks_no_proof(runs: InterleavedRuns) -> None:
    number = 0
    while number < runs.runs:
        number += 1
        assert failures_with_a_run_before(number, runs) == [], f"before question {number}"
    assert number > 10, "a run was made before each question, and then there was none left"


def test_the_proof_notices_when_its_questions_are_of_several_moments(
    runs: InterleavedRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tests above would say if each question were asked of today."""
    for kind in (DuckDBDestination, BigQueryDestination):
        monkeypatch.setattr(kind, "at_one_moment", lambda destination: nullcontext(destination))
    assert "no row that no run has read" in failures_with_a_run_before(4, runs)


def test_a_ledger_without_a_run_and_its_tables_are_looked_at_together(
    kafka: InMemoryKafka, tmp_path: Path
) -> None:
    settings = config(tmp_path / "payments.duckdb")
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    with open_destination(settings.destination) as destination:
        destination.tables.create(settings.schema)
        before_question(1, destination, lambda: assert_one(run(settings)))
        (result,) = check(destination, None, 100.0, 400)
    assert (result.status, result.figure) == (
        "noted",
        "nothing to check: no run has written here",
    )


def assert_one(records: list[Any]) -> None:
    assert len(records) == 1


def test_every_question_of_bigquery_names_the_moment_and_no_view(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn
) -> None:
    kafka.create("payments", 1)
    runs = InterleavedRuns(kafka, bigquery(stand_in))
    runs.run()
    asked: list[str] = []
    with runs.open() as destination:
        ask = destination.query

        def query(sql: str, *parameters: Any) -> Any:
            asked.append(sql)
            return ask(sql, *parameters)

        destination.query = query  # type: ignore[method-assign]
        list(check(destination, None, 100.0, 400, 0.9))
    assert len(asked) > 5
    for sql in asked:
        assert sql.count("`payments-test.d.") == sql.count(" FOR SYSTEM_TIME AS OF ") > 0
        assert "deduplication_audit" not in sql and "offset_coverage" not in sql
