"""What streaming jobs have written is pruned when they have handed the tables over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.prune.command import prune
from pipeline.prune.plan import PrunePlan
from tests.support.in_memory_kafka import HOUR_US, NOW_US, InMemoryKafka
from tests.support.payments import MINUTE
from tests.support.streaming.destination import duckdb_destination
from tests.support.streaming.hand_over import Tables
from tests.support.streaming.log import HORIZON, Sent
from tests.support.streaming.oracle import compare, rows_of
from tests.support.streaming.runner import read_to_the_end
from transforms.destinations.contract.ownership import STOP, ownership_of
from transforms.model.errors import GuaranteeError

LOG = [
    [Sent("a", 0), Sent("b", MINUTE), Sent("a", MINUTE), Sent(None, 0), Sent("c", 2 * MINUTE)]
    + [Sent("d", 8 * HORIZON), Sent("e", 8 * HORIZON + MINUTE), Sent("d", 8 * HORIZON)],
    [Sent("a", 0), Sent("f", 0), Sent(None, 0, gap=True), Sent("g", MINUTE)]
    + [Sent("h", 8 * HORIZON), Sent("h", 8 * HORIZON), Sent("i", 9 * HORIZON)],
]
FIRST = [5, 4]


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Any]:
    with duckdb_destination(tmp_path) as opened:
        yield opened


def pruned(tables: Tables) -> Any:
    # A job's records may have been rejected at any time while it ran, by its workers' clocks.
    return prune(tables.real, NOW_US + 2 * HOUR_US, lambda: NOW_US).plan


def offsets(destination: Any) -> set[tuple[int, int]]:
    return {where for rows in rows_of(destination).values() for where, _ in rows}


def test_a_job_that_was_stopped_is_pruned_as_one_run(
    destination: Any, kafka: InMemoryKafka
) -> None:
    tables = Tables(destination, kafka, [list(records) for records in LOG], offered=FIRST)
    tables.attempt(tables.begin()).bundle([(0, FIRST[0]), (1, FIRST[1])])
    with pytest.raises(GuaranteeError, match="its checkpoints count on their rows"):
        pruned(tables)
    tables.stop()
    tables.offer([len(records) for records in LOG])
    read_to_the_end(tables.attempt(tables.begin()))
    tables.stop()
    compare(destination, LOG)
    plan = pruned(tables)
    assert isinstance(plan, PrunePlan)
    border = next(run for run in destination.runs.read() if run.run_id == plan.pruned.border)
    ownership = ownership_of(border)
    assert ownership is not None and ownership.kind == STOP
    assert plan.pruned.below() == {("payments", 0): 5, ("payments", 1): 4}
    assert offsets(destination) == {(0, 5), (0, 6), (0, 7), (1, 4), (1, 5), (1, 6)}
    assert tables.failures() == []
    # The next job goes on behind them, without a checkpoint.
    for records in tables.log:
        records += [Sent("j", 9 * HORIZON), Sent("d", 8 * HORIZON + MINUTE), Sent("k", 9 * HORIZON)]
    tables.offer([len(records) for records in tables.log])
    begun = tables.begin()
    assert {part.partition: part.position for part in begun.partitions} == {0: 8, 1: 7}
    tables.attempt(begun).bundle([(0, 2), (1, 1)])
    # It dies, and another one takes over from the tables.
    read_to_the_end(tables.attempt(tables.begin(take_over=True)))
    tables.stop()
    assert tables.failures() == []
    assert Counter(key for rows in rows_of(destination).values() for _, key in rows) == Counter(
        d=4, e=1, h=2, i=1, j=2, k=2
    )
    assert sorted(key for _, key in rows_of(destination)["payment_transactions"]) == list("dehijk")


def test_windows_that_nobody_observed_are_pruned_with_their_mark(
    destination: Any, kafka: InMemoryKafka
) -> None:
    """The first job is lost, and a run that dies is judged by what the totals lack since."""
    tables = Tables(destination, kafka, LOG, offered=FIRST)
    tables.attempt(tables.begin()).bundle([(0, 5), (1, 4)])
    assert tables.stop().unobserved != []
    tables.offer([7, 6])
    tables.run()
    assert tables.failures() == []
    plan = pruned(tables)
    assert isinstance(plan, PrunePlan)
    assert plan.pruned.not_in_totals == 0
    assert tables.failures() == []
    tables.offer([8, 7])
    tables.run()
    assert tables.failures() == []
