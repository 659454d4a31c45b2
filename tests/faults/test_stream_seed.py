"""A streaming job behind a job of Spark: each shard without a state begins with the seed's ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.in_memory_kafka import InMemoryKafka
from tests.support.payments import MINUTE
from tests.support.seeded import change, checkpoint, pay_before, seed_of_old
from tests.support.streaming.destination import DESTINATIONS, look
from tests.support.streaming.faults import Kill, Killed
from tests.support.streaming.hand_over import Tables
from tests.support.streaming.log import HORIZON, TOPIC, Sent
from tests.support.streaming.runner import read_to_the_end
from tests.support.whole_runs import COPIES, IDS
from transforms.destinations.contract.seed import seed_of
from transforms.model.errors import GuaranteeError

# What stands before the positions the old job has read: one record of each partition.
LOG = [
    [Sent("a", 0), Sent("a", 0), Sent("b", MINUTE), Sent("x", MINUTE), Sent("b", 2 * MINUTE)],
    [Sent("c", 0), Sent("b", 0), Sent("d", 0), Sent("y", MINUTE), Sent("c", MINUTE)],
]
PAID = [("a", 0), ("c", 0), ("b", -MINUTE), ("old", -2 * HORIZON)]


@pytest.fixture(params=DESTINATIONS)
def tables(
    tmp_path: Path, request: pytest.FixtureRequest, kafka: InMemoryKafka
) -> Iterator[Tables]:
    with DESTINATIONS[request.param](tmp_path) as opened:
        there = Tables(opened, kafka, [list(records) for records in LOG])
        pay_before(there, PAID)
        yield there


def first(tables: Tables, folder: Path) -> dict[str, Any]:
    """Flags of the first start."""
    start = checkpoint(folder / "old", [({TOPIC: {"0": 1, "1": 1}}, 0, True)])
    return {"start": start, "seed": seed_of_old(tables)}


def ids(tables: Tables, sql: str = IDS) -> list[str]:
    return [row[0] for row in look(tables.real, sql)]


def paid_once(tables: Tables) -> None:
    """Over both tables: what the old job has paid is a duplicate wherever it comes again."""
    assert ids(tables) == ["d", "x", "y"]
    assert ids(tables, COPIES) == ["a", "b", "b", "b", "c"]
    assert tables.failures() == []


def test_a_job_begins_with_the_ids_of_the_seed(tables: Tables, tmp_path: Path) -> None:
    begun = tables.begin(**first(tables, tmp_path))
    assert {part.partition: part.position for part in begun.partitions} == {0: 1, 1: 1}
    read_to_the_end(tables.attempt(begun))
    paid_once(tables)


def test_a_job_without_its_checkpoint_loads_it_again(tables: Tables, tmp_path: Path) -> None:
    """Its flags are not given any more: the ledger carries the seed on."""
    begun = tables.begin(**first(tables, tmp_path))
    tables.attempt(begun).bundle([(0, 1), (1, 1)])
    again = tables.begin(take_over=True)
    assert again.seed is not None
    read_to_the_end(tables.attempt(again))
    paid_once(tables)


@pytest.mark.parametrize("after", [False, True])
def test_a_shard_that_dies_in_its_first_bundle_begins_with_it_again(
    tables: Tables, tmp_path: Path, after: bool
) -> None:
    begun = tables.begin(**first(tables, tmp_path))
    with pytest.raises(Killed):
        tables.attempt(begun, kill=Kill("send", 0, after=after)).bundle([(0, 3), (1, 3)])
    tables.network.deliver(9)
    read_to_the_end(tables.attempt(begun))
    paid_once(tables)


def test_a_restored_job_and_a_run_behind_its_stop_know_it(tables: Tables, tmp_path: Path) -> None:
    begun = tables.begin(**first(tables, tmp_path))
    attempt = tables.attempt(begun)
    attempt.bundle([(0, 1), (1, 1)])
    kept = attempt.checkpoint()
    attempt.bundle([(0, 1)])
    restored = tables.restore()
    assert restored.seed is not None
    tables.attempt(restored, kept).bundle([(0, 2), (1, 1)])
    tables.stop()
    tables.run()
    paid_once(tables)
    assert seed_of(tables.real.runs.tail()[-1]) == restored.seed


def test_a_job_is_refused_where_it_is_gone(tables: Tables, tmp_path: Path) -> None:
    tables.begin(**first(tables, tmp_path))
    change(tables, "DROP TABLE {old}")
    with pytest.raises(GuaranteeError, match="there is no such table"):
        tables.begin(take_over=True)
    with pytest.raises(GuaranteeError, match="there is no such table"):
        tables.restore()
