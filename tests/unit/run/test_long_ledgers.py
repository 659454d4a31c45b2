"""A run reads the end of the ledger: a long one costs it no more than a short one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from typing import Any

import msgspec
import pytest

from tests.faults.dying import die_while_committing
from tests.support.in_memory_kafka import InMemoryKafka, config, payment, run, use
from transforms.destinations.contract.run_ledger import COMMITTED, RunRecord
from transforms.destinations.contract.run_tail import with_landmarks
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.run_ledger import INSERT, DuckDBRunLedger, insert_values
from transforms.model.tables import RUNS

MANY = 2000
TEN_SECONDS_US = 10_000_000


def more_records(before: RunRecord, count: int) -> Iterator[RunRecord]:
    """So many runs that have come to nothing new, ten seconds apart, as the newest one is."""
    runs = [before]
    for number in range(count):
        following = msgspec.structs.replace(
            runs[-1],
            run_id=f"run-filled-{number}",
            predecessor=runs[-1].run_id,
            status=COMMITTED,
            plan_time=runs[-1].plan_time + TEN_SECONDS_US,
            partitions=[
                msgspec.structs.replace(
                    part,
                    from_offset=part.to_offset,
                    start_watermark=part.watermark,
                    records=0,
                    coordinate_hash=0,
                )
                for part in before.partitions
            ],
            tables=[msgspec.structs.replace(one, rows=0) for one in before.tables],
        )
        runs = [*runs[-2:], with_landmarks(following, runs)]
        yield runs[-1]


def fill(path: Path, count: int) -> int:
    """So many records behind those of the ledger; returns the plan time of the newest."""

    def write(cursor: Any) -> None:
        for record in records:
            cursor.execute(INSERT, insert_values(record))
        cursor.execute(
            f"UPDATE {RUNS} SET successor = after.run_id FROM {RUNS} AS after"
            f" WHERE after.predecessor = {RUNS}.run_id"
        )

    with DuckDBDestination(str(path)) as destination:
        records = list(more_records(destination.runs.tail()[-1], count))
        destination.session.atomically(write)
    return records[-1].plan_time


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many rows of the ledger each question has answered."""
    original, answers = DuckDBRunLedger._rows, []

    def counting(self: Any, *given: Any) -> list[dict[str, Any]]:
        rows = original(self, *given)
        answers.append(len(rows))
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBRunLedger, "_rows", counting)
        yield answers


Scenario = Callable[[InMemoryKafka, Path, int, pytest.MonkeyPatch], object]


def nothing_to_read(_kafka: InMemoryKafka, path: Path, now: int, _: pytest.MonkeyPatch) -> object:
    return run(config(path), now)


def three_transactions(kafka: InMemoryKafka, path: Path, now: int, _: pytest.MonkeyPatch) -> object:
    kafka.send("payments", 0, *(payment(f"new-{number}", now) for number in range(3)))
    return run(config(path, max_records_per_run=1), now)


def a_dead_run(kafka: InMemoryKafka, path: Path, now: int, patch: pytest.MonkeyPatch) -> object:
    kafka.send("payments", 0, payment("dead", now))
    die_while_committing(1, lambda: run(config(path), now), patch)
    return run(config(path), now)


SCENARIOS = [nothing_to_read, three_transactions, a_dead_run]


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int]]:
    """A short and a long one, each with the plan time of its newest record."""
    folder = tmp_path_factory.mktemp("ledgers")
    paths = [folder / f"{count}.duckdb" for count in (20, MANY)]
    with pytest.MonkeyPatch.context() as patch:
        kafka = InMemoryKafka()
        use(kafka, patch)
        fill_kafka(kafka)
        for path in paths:
            run(config(path))
    return [(path, fill(path, count)) for path, count in zip(paths, (20, MANY), strict=True)]


def fill_kafka(kafka: InMemoryKafka) -> None:
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_run_reads_no_more_of_a_long_ledger(
    ledgers: Sequence[tuple[Path, int]],
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scenario: Scenario,
) -> None:
    read = []
    for ledger, now in ledgers:
        copy(ledger, path)
        fill_kafka(kafka)
        with counted(monkeypatch) as answers:
            scenario(kafka, path, now, monkeypatch)
        read.append(answers)
    assert read[0] == read[1]
    assert 0 < sum(read[1]) < 40


def test_the_first_run_of_this_version_reads_the_whole_and_the_next_ones_do_not(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_kafka(kafka)
    run(config(path))
    now = fill(path, 100)
    with DuckDBDestination(str(path)) as destination:
        # Earlier versions named none.
        destination.session.cursor().execute(
            "UPDATE pipeline_runs"
            " SET settings = json_merge_patch(settings, json_object('landmarks', NULL))"
        )
    kafka.send("payments", 0, payment("b", now))
    with counted(monkeypatch) as answers:
        assert len(run(config(path), now)) == 1
    assert 102 in answers
    kafka.send("payments", 0, payment("c", now))
    with counted(monkeypatch) as answers:
        assert len(run(config(path), now)) == 1
    assert 0 < sum(answers) < 40
