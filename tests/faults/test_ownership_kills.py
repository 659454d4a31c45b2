"""The driver of a begin, a restore or a stop dies right before and right after each of its changes.

Whatever it leaves, a stop, or a job that takes over, goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.in_memory_kafka import InMemoryKafka, use
from tests.support.payments import MINUTE
from tests.support.streaming.destination import DESTINATIONS
from tests.support.streaming.faults import Killed
from tests.support.streaming.hand_over import DyingDestination, Tables
from tests.support.streaming.log import TOPIC, Sent
from tests.support.streaming.oracle import compare
from tests.support.streaming.runner import read_to_the_end
from transforms.destinations.contract.ownership import owner_of
from transforms.model.totals import add_up
from transforms.stream.gaps import Gap

LOG = [
    [Sent("a", 0), Sent("b", MINUTE), Sent(None, 0), Sent("c", 2 * MINUTE), Sent("a", 0)],
    [Sent("a", 0), Sent("d", 0), Sent(None, 0, gap=True), Sent("e", MINUTE), Sent("f", MINUTE)],
]


def begin(tables: Tables) -> Callable[[Any], Any]:
    tables.offer([2, 2])
    tables.run()
    return tables.begin


def begin_first(tables: Tables) -> Callable[[Any], Any]:
    return tables.begin


def take_over(tables: Tables) -> Callable[[Any], Any]:
    tables.attempt(tables.begin()).bundle([(0, 3), (1, 1)])
    return lambda through: tables.begin(through, take_over=True)


def restore(tables: Tables) -> Callable[[Any], Any]:
    begun = tables.begin()
    tables.attempt(begun).bundle([(0, 3), (1, 1)])
    return lambda through: tables.restore(through, checkpoint_of=begun.job.job_id)


def stop(tables: Tables) -> Callable[[Any], Any]:
    """Two records that no totals count yet, and a gap that is not written yet."""
    tables.attempt(tables.begin()).bundle([(0, 2), (1, 2)])
    owed = tables.real.rows.present_totals(
        [(TOPIC, 0, 0, 2), (TOPIC, 1, 0, 2)], "amount", "currency"
    )
    gap = Gap(TOPIC, 1, 2, 2, "no_record")
    return lambda through: tables.stop(through, owed=add_up([owed]), pending_gaps=[gap])


def another_number(shards: int) -> Callable[[Tables], Callable[[Any], Any]]:
    """Behind a stop a job begins with another number of shards."""

    def operation(tables: Tables) -> Callable[[Any], Any]:
        tables.attempt(tables.begin()).bundle([(0, 3), (1, 1)])
        tables.stop()
        return lambda through: tables.begin(through, take_over=True, shards=shards)

    return operation


OPERATIONS = {
    "begin first": begin_first,
    "begin": begin,
    "take over": take_over,
    "restore": restore,
    "stop": stop,
    "more shards": another_number(5),
    "fewer shards": another_number(1),
}


def goes_on_by_stop(tables: Tables) -> None:
    tables.offer([len(records) for records in tables.log])
    if owner_of(tables.real.runs.read()) is not None:
        tables.stop()
    tables.run()


def goes_on_by_taking_over(tables: Tables) -> None:
    tables.offer([len(records) for records in tables.log])
    read_to_the_end(tables.attempt(tables.begin(take_over=True)))
    tables.stop()


@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_whatever_a_dead_driver_leaves_another_one_goes_on_from(
    kind: str,
    operation: Callable[[Tables], Callable[[Any], Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at, ended = 0, False
    while not ended:
        # An example takes long on BigQuery's stand-in: every third change, on one side, there.
        sides = (False, True) if kind == "duckdb" else (at % 2 == 0,)
        for after in sides:
            folder = tmp_path / f"{at}-{after}"
            folder.mkdir()
            goes_on = goes_on_by_stop if (at + after) % 2 else goes_on_by_taking_over
            ended = dies_and_goes_on(kind, folder, monkeypatch, operation, goes_on, at, after)
        at += 1 if kind == "duckdb" else 3
        assert at < 100
    assert at > 2, "there are changes to die at"


def dies_and_goes_on(
    kind: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    operation: Callable[[Tables], Callable[[Any], Any]],
    goes_on: Callable[[Tables], None],
    at: int,
    after: bool,
) -> bool:
    """Whether the operation came to its end before its change of that number."""
    kafka = InMemoryKafka()
    use(kafka, monkeypatch)
    with DESTINATIONS[kind](folder) as destination:
        tables = Tables(destination, kafka, [list(records) for records in LOG])
        operate = operation(tables)
        try:
            operate(DyingDestination(destination, at, after))
            return True
        except Killed:
            pass
        goes_on(tables)
        compare(destination, tables.log)
        assert tables.failures() == []
    return False
