"""Another number of shards: only a job that follows a stop may begin with it.

One test per interleaving that docs/streaming.md names.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from pipeline.streaming.begin import Begun
from tests.faults.test_ownership import Paused, holes_in, whole
from tests.property.test_stream import DIES
from tests.support.in_memory_kafka import InMemoryKafka
from tests.support.payments import MINUTE
from tests.support.streaming.destination import DESTINATIONS
from tests.support.streaming.faults import Killed
from tests.support.streaming.hand_over import DyingDestination, Tables
from tests.support.streaming.log import Sent
from tests.support.streaming.oracle import rows_of
from tests.support.streaming.runner import Attempt, read_to_the_end
from transforms.destinations.contract.ownership import owner_of
from transforms.destinations.contract.shard_ledger_rows import all_shards
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.tables import DUPLICATES, PAYMENTS

NEW = [[Sent(key, 0) for key in "abcdefgh"], [Sent(key, 0) for key in "ijklmnop"]]
COPIES = [[Sent(key, MINUTE) for key in "ijkl"], [Sent(key, MINUTE) for key in "abcd"]]
MORE_COPIES = [[Sent(key, MINUTE) for key in "mnop"], [Sent(key, MINUTE) for key in "efgh"]]
LOG = [[*new, *copies, *more] for new, copies, more in zip(NEW, COPIES, MORE_COPIES, strict=True)]
"""16 payments, and a copy of each in the other partition."""


@pytest.fixture
def tables(destination: Any, kafka: InMemoryKafka) -> Tables:
    return Tables(destination, kafka, [list(records) for records in LOG], shards=4)


def numbers(tables: Tables) -> tuple[object, list[int]]:
    """Of shards: by the record that owns the tables, and the rows of the ledger."""
    record = tables.real.runs.read()[-1]
    assert owner_of([record]) is not None
    return record.settings["shards"], [row.shard for row in tables.real.shards.read_all()]


def ends(tables: Tables, begun: Begun) -> None:
    """The job reads the rest of the log, and is stopped."""
    assert numbers(tables) == (begun.shards, all_shards(begun.shards))
    read_to_the_end(tables.attempt(begun))
    tables.stop()
    whole(tables)
    payments = [key for _, key in rows_of(tables.real)[PAYMENTS]]
    assert sorted(payments) == sorted("abcdefghijklmnop")
    assert len(rows_of(tables.real)[DUPLICATES]) == 16


def another(tables: Tables, shards: int, through: Any = None) -> Begun:
    return tables.begin(through, take_over=True, shards=shards)


@pytest.mark.parametrize("sizes", [(4, 8, 3), (3, 1, 4)])
def test_copies_of_what_was_paid_under_other_numbers_are_known(
    tables: Tables, sizes: tuple[int, int, int]
) -> None:
    tables.shards = sizes[0]
    for shards, records in zip(sizes[:2], (8, 4), strict=True):
        begun = another(tables, shards)
        assert begun.shards == shards
        tables.attempt(begun).bundle([(0, records), (1, records)])
        tables.stop()
    ends(tables, another(tables, sizes[2]))


def test_a_bounded_run_may_lie_between(tables: Tables) -> None:
    tables.attempt(tables.begin()).bundle([(0, 5), (1, 3)])
    tables.stop()
    tables.offer([9, 9])
    tables.run()
    tables.offer([16, 16])
    ends(tables, another(tables, 6))


def test_rows_behind_a_hole_belong_to_other_shards_from_then_on(tables: Tables) -> None:
    attempt = tables.attempt(tables.begin())
    attempt.bundle([(0, 2), (1, 2)])
    holes_in(attempt, [(0, 6), (1, 6)])
    stopped = tables.stop()
    assert any(part.to_offset < 8 for part in stopped.record.partitions), "there is a hole"
    begun = another(tables, 7)
    first = tables.attempt(begun)
    first.bundle([(0, 3), (1, 1)])
    # Its checkpoint, and the rows that it has not passed yet, under the new number.
    kept = first.checkpoint()
    second = tables.attempt(begun, kept)
    read_to_the_end(second)
    tables.stop()
    whole(tables)


class AtChange(DyingDestination):
    """Something happens right before the driver's change of this number."""

    def __init__(self, real: Any, number: int, happens: Callable[[], Any]) -> None:
        super().__init__(real)
        self._number, self._happens = number, happens

    def _change(self, name: str, effect: Callable[[], Any]) -> Any:
        if len(self.calls) == self._number:
            self._happens()
        return super()._change(name, effect)


@pytest.mark.parametrize(("shards", "begins"), [(6, 0), (2, 1)])
@pytest.mark.parametrize("kind", DESTINATIONS)
def test_a_process_of_the_old_number_adds_nothing_at_any_moment(
    kind: str, shards: int, begins: int, tmp_path: Path, kafka: InMemoryKafka
) -> None:
    number, changes = begins, begins
    while number <= changes:
        folder = tmp_path / str(number)
        folder.mkdir()
        kafka.topics.clear()
        with DESTINATIONS[kind](folder) as destination:
            tables = Tables(destination, kafka, [list(records) for records in LOG], shards=4)
            changes = goes_on_while_the_number_changes(tables, shards, number)
        # An example takes long: every moment either with more shards or with fewer.
        number += 2 if kind == "duckdb" else 8
    assert changes > 10


def goes_on_while_the_number_changes(tables: Tables, shards: int, number: int) -> int:
    """Changes of the stop and the begin. number: of the one before which the old job wakes up."""
    attempt = tables.attempt(tables.begin())
    attempt.bundle([(0, 3), (1, 3)])
    asleep = tables.attempt(tables.begin(take_over=True))
    asleep.bundle([(0, 1), (1, 1)])
    holes_in(asleep, [(0, 5), (1, 2)])
    asleep.destination.kill, asleep.destination.dead = None, False

    def wakes_up() -> None:
        for zombie in (attempt, asleep):
            with suppress(*DIES, GuaranteeError):
                zombie.bundle([(0, 1), (1, 1)])
        tables.network.deliver(100)

    driver = AtChange(tables.real, number, wakes_up)
    tables.stop(driver)
    begun = another(tables, shards, driver)
    changes = len(driver.calls)
    job = tables.attempt(begun)
    if number >= changes:
        wakes_up()
    job.bundle([(0, 2), (1, 2)])
    wakes_up()
    read_to_the_end(job)
    tables.stop()
    whole(tables)
    return changes


def test_a_zombie_of_a_shard_that_is_no_more_is_told_that_it_is_superseded(tables: Tables) -> None:
    zombie = tables.attempt(tables.begin())
    zombie.bundle([(0, 2), (1, 2)])
    checkpoint = zombie.checkpoint()
    tables.stop()
    another(tables, 2)
    again = Attempt(zombie.destination, zombie.settings, checkpoint)
    with pytest.raises(GuaranteeError, match="superseded"):
        again.bundle([(0, 5), (1, 5)])


# What is refused.


def test_another_number_is_refused_while_a_job_owns_the_tables(tables: Tables) -> None:
    first = tables.begin()
    for operation in (
        lambda: another(tables, 8),
        lambda: tables.restore(checkpoint_of=first.job.job_id, shards=8),
    ):
        with pytest.raises(GuaranteeError) as refused:
            operation()
        message = refused.value.message
        assert message.startswith(f"--shards=8: the streaming job {first.job.job_id}, ")
        assert "`stop --lost`" in message
        assert message.endswith("--from_tables --shards=8.")
        assert numbers(tables) == (4, all_shards(4))
    assert tables.restore(checkpoint_of=first.job.job_id, shards=4).shards == 4
    assert tables.begin(take_over=True).shards == 4


def test_behind_a_stop_another_number_needs_from_tables(tables: Tables) -> None:
    tables.begin()
    tables.stop()
    with pytest.raises(GuaranteeError) as refused:
        tables.begin(shards=8)
    assert refused.value.message.startswith("--shards=8: the last streaming job")
    assert "add --from_tables" in refused.value.message
    assert tables.begin().shards == 4, "a number that is not given stays"
    tables.stop()
    assert another(tables, 8).shards == 8
    tables.stop()
    assert tables.begin(take_over=True).shards == 8


def test_a_checkpoint_of_an_earlier_time_with_the_same_number_is_refused(tables: Tables) -> None:
    """Its maker is unknown to Flink, so that nothing else refuses it."""
    old = tables.attempt(tables.begin())
    old.bundle([(0, 2), (1, 2)])
    checkpoint = old.checkpoint()
    for shards in (3, 4):
        tables.stop()
        another(tables, shards)
    restored = tables.attempt(tables.restore(), checkpoint)
    with pytest.raises(GuaranteeError, match="before the number of shards was changed"):
        restored.bundle([(0, 2), (1, 2)])


# The claim decides.


def test_a_first_start_that_died_before_its_claim_has_fixed_no_number(tables: Tables) -> None:
    with pytest.raises(Killed):
        tables.begin(Before(tables.real, "claim", nth=1), shards=4)
    ends(tables, tables.begin(shards=6))


class Before(DyingDestination):
    """The driver dies right before its `nth` call of this name (from 0)."""

    def __init__(self, real: Any, name: str, nth: int = 0) -> None:
        super().__init__(real)
        self._name, self._nth = name, nth

    def _change(self, name: str, effect: Callable[[], Any]) -> Any:
        if name == self._name and self.calls.count(name) == self._nth:
            raise Killed(f"before {name}")
        return super()._change(name, effect)


def first(tables: Tables) -> None:
    """Nothing is there."""


def stopped(tables: Tables) -> None:
    tables.attempt(tables.begin()).bundle([(0, 2), (1, 2)])
    tables.stop()


def lost_half_way(tables: Tables) -> None:
    """A job with another number has claimed the chain, and its rows are not there yet."""
    stopped(tables)
    with pytest.raises(Killed):
        another(tables, 5, Before(tables.real, "begin_job"))


@pytest.mark.parametrize("slow", ["create", "claim", "begin_job", "swap"])
@pytest.mark.parametrize("before", [first, stopped, lost_half_way])
def test_of_two_that_begin_at_once_the_claim_decides_the_number(
    tables: Tables, before: Callable[[Tables], None], slow: str
) -> None:
    before(tables)
    given = {} if before is lost_half_way else {"shards": 6}
    begun = []
    with Paused(tables.real, slow, lambda through: tables.begin(through, take_over=True)) as paused:
        with suppress(GuaranteeError, TryAgainLater):
            begun.append(tables.begin(take_over=True, **given))
        with suppress(GuaranteeError, TryAgainLater):
            begun.append(paused.go_on())
    assert len(begun) == 1
    ends(tables, begun[0])


@pytest.mark.parametrize("slow", ["create", "claim", "begin_job", "swap"])
@pytest.mark.parametrize("before", [stopped, lost_half_way])
def test_a_stop_while_the_number_changes(
    tables: Tables, before: Callable[[Tables], None], slow: str
) -> None:
    before(tables)
    given = {} if before is lost_half_way else {"shards": 6}
    with (
        Paused(
            tables.real, slow, lambda through: tables.begin(through, take_over=True, **given)
        ) as paused,
        suppress(GuaranteeError, TryAgainLater),
    ):
        tables.stop()
        paused.go_on()
    if owner_of(tables.real.runs.read()) is not None:
        tables.stop()
    ends(tables, another(tables, 3))
