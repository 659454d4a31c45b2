"""`prune` between other processes, and in ledgers with a past: each of these was wrong once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from pipeline.check.command import check
from pipeline.check.result import FAILED
from pipeline.options.config import AdoptTopic
from pipeline.prune import prune as prune_module
from pipeline.prune.plan import PrunePlan
from pipeline.run import command as run_module
from pipeline.run import commit as commit_module
from pipeline.run import recover as recover_module
from pipeline.run.commit import commit, mark
from tests.faults.dying import ProcessDied
from tests.support.in_memory_kafka import HOUR_US, MINUTE_US, NOW_US, InMemoryKafka, payment
from tests.support.pruned import DAY_US, Kept, on_duckdb
from transforms.model.errors import GuaranteeError, TryAgainLater


@pytest.fixture
def empty(kafka: InMemoryKafka, tmp_path: Any) -> Iterator[Kept]:
    """A DuckDB file without a run, and a topic of two partitions."""
    kafka.create("payments", 2)
    with on_duckdb(kafka, tmp_path) as opened:
        yield opened


def behind_check(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Another process does something once the `check` of a prune has passed."""
    original = check

    def slow(*given: Any, **named: Any) -> Any:
        yield from original(*given, **named)
        happens()

    monkeypatch.setattr(prune_module, "check", slow)


def died(*_: Any, **__: Any) -> None:
    raise ProcessDied


def test_a_run_that_claims_behind_the_check_of_a_prune_is_finished_first(
    file: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.send(0, payment("a", file.now_us))

    def claims() -> None:
        with monkeypatch.context() as patch, pytest.raises(ProcessDied):
            patch.setattr(run_module, "commit", died)
            file.run()

    with monkeypatch.context() as patch:
        behind_check(patch, claims)
        with suppress(TryAgainLater):
            file.prune(file.now_us - DAY_US)
    file.run()
    assert file.failures() == []


def test_a_run_that_goes_on_beside_a_prune_is_not_read_twice(
    file: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has claimed behind the check of the prune, and commits when that is done."""
    file.send(0, payment("a", file.now_us))
    original = commit
    held: list[Callable[[], Any]] = []

    def slow(*given: Any) -> Any:
        held.append(lambda: original(*given))
        raise ProcessDied

    def claims() -> None:
        with monkeypatch.context() as patch, pytest.raises(ProcessDied):
            patch.setattr(run_module, "commit", slow)
            file.run()

    with monkeypatch.context() as patch:
        behind_check(patch, claims)
        with suppress(TryAgainLater):
            file.prune(file.now_us - DAY_US)
    held[0]()
    file.run()
    assert sum(row[4] == "a" for row in file.rows()) == 1
    assert file.failures() == []


def test_a_horizon_that_has_grown_holds_for_what_is_pruned(empty: Kept) -> None:
    """The next run loads ids as far back as the new horizon reaches, and so far none may go."""
    empty.send(0, payment("old", NOW_US - 3 * HOUR_US))
    empty.send(1, payment("old too", NOW_US - 3 * HOUR_US))
    empty.run()
    empty.now_us += MINUTE_US
    empty.send(0, payment("new", empty.now_us))
    empty.send(1, payment("new too", empty.now_us))
    empty.run()
    empty.settings = replace(empty.settings, dedup_horizon_us=6 * HOUR_US)
    empty.now_us += MINUTE_US
    empty.send(0, payment("newer", empty.now_us))
    empty.run()
    empty.prune(empty.now_us)
    empty.send(0, payment("newest", empty.now_us), payment("newest", empty.now_us))
    empty.run()
    assert empty.failures() == []


def test_what_an_earlier_prune_has_removed_is_not_forgotten_by_the_next_one(empty: Kept) -> None:
    """The second prune removes rejected records alone, so its latest event time is none."""
    empty.send(0, payment("paid", NOW_US - 3 * HOUR_US))
    empty.send(1, payment("b", NOW_US - 3 * HOUR_US))
    empty.run()
    for name in ("c", "d"):
        empty.now_us += MINUTE_US
        empty.send(0, b"broken")
        empty.send(1, b"broken")
        empty.run()
        empty.send(0, payment(name, empty.now_us))
        empty.send(1, payment(f"{name}-1", empty.now_us))
        empty.run()
    first = empty.prune(NOW_US + MINUTE_US)
    assert isinstance(first.plan, PrunePlan) and first.plan.pruned.latest_us is not None
    second = empty.prune(NOW_US + 2 * MINUTE_US)
    assert isinstance(second.plan, PrunePlan), second
    assert empty.failures() == []
    empty.settings = replace(empty.settings, extra_retention_us=10 * HOUR_US)
    empty.send(0, payment("e", empty.now_us))
    with pytest.raises(GuaranteeError, match="were pruned"):
        empty.run()


def test_an_older_generation_of_a_topic_holds_no_prune_back(empty: Kept) -> None:
    """It is never read again, so no run will ask for its ids."""
    empty.send(0, payment("a", NOW_US - 3 * HOUR_US))
    empty.send(1, payment("b", NOW_US - 3 * HOUR_US))
    empty.run()
    empty.kafka.create("payments", 1, topic_id="new")
    empty.settings = replace(
        empty.settings, adopt_topics=(AdoptTopic("payments", "new", None),), on_data_loss="accept"
    )
    for day in range(1, 4):
        empty.now_us = NOW_US + day * DAY_US
        empty.send(0, payment(f"day {day}", empty.now_us))
        empty.run()
    assert empty.failures() == []
    result = empty.prune(empty.now_us)
    assert isinstance(result.plan, PrunePlan), result
    left = {row[4] for row in empty.rows()}
    assert left == {"day 3"}


def a_dead_prune(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(prune_module, "commit", died)
        kept.prune(kept.now_us - DAY_US)


def test_a_run_that_finishes_another_one_meets_a_prune(
    file: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune claims right behind the run that this one has finished."""
    file.send(0, payment("a", file.now_us))
    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(run_module, "commit", died)
        file.run()
    original, calls = commit, count()

    def slow(*given: Any) -> Any:
        status = original(*given)
        if next(calls):
            return status
        with monkeypatch.context() as patch:
            patch.setattr(recover_module, "commit", original)
            a_dead_prune(file, patch)
        return status

    file.send(0, payment("b", file.now_us))
    with monkeypatch.context() as patch:
        patch.setattr(recover_module, "commit", slow)
        with suppress(TryAgainLater):
            file.run()
    file.run()
    assert file.failures() == []


def days_with_refunds(empty: Kept, *last: bytes) -> None:
    """Four days of payments; two thousand refunds on the first one, these on the last one."""
    empty.kafka.create("refunds", 1)
    empty.settings = replace(empty.settings, topics=("payments", "refunds"), max_rejected_rate=0.1)
    empty.send(0, payment("a", NOW_US))
    empty.send(1, payment("b", NOW_US))
    empty.kafka.send("refunds", 0, *(payment(f"refund {n}", NOW_US) for n in range(2000)))
    empty.run()
    for day in range(1, 4):
        empty.now_us = NOW_US + day * DAY_US
        empty.send(0, payment(f"a {day}", empty.now_us))
        empty.send(1, payment(f"b {day}", empty.now_us))
        if day == 3:
            empty.kafka.send("refunds", 0, *last)
        empty.run()


def test_a_quiet_topic_is_not_refused_for_one_broken_record(empty: Kept) -> None:
    """Its good payments were pruned, and they were what one broken record was judged by."""
    days_with_refunds(empty)
    result = empty.prune(empty.now_us - DAY_US)
    assert isinstance(result.plan, PrunePlan), result
    empty.send(0, payment("more", empty.now_us))
    empty.kafka.send("refunds", 0, b"broken")
    empty.run()
    assert [one for one in check(empty.real, None, 1.0, 400, 0.1) if one.status == FAILED] == []


def test_check_does_not_judge_a_topic_by_what_a_prune_has_left(empty: Kept) -> None:
    """One broken record behind two thousand good ones; only it is left."""
    days_with_refunds(empty, b"broken")

    def failed() -> list[Any]:
        return [one for one in check(empty.real, None, 1.0, 400, 0.1) if one.status == FAILED]

    assert failed() == []
    result = empty.prune(empty.now_us - DAY_US)
    assert isinstance(result.plan, PrunePlan), result
    assert failed() == []


def test_a_prune_binds_no_run_to_settings_that_bound_none(empty: Kept) -> None:
    """An adoption of an empty topic has read nothing, so its horizon is not promised; the prune
    behind it takes it over, and promises it.
    """
    for partition in range(2):
        empty.send(partition, payment(f"old {partition}", NOW_US - 3 * HOUR_US))
    empty.run()
    empty.now_us += MINUTE_US
    for partition in range(2):
        empty.send(partition, payment(f"new {partition}", empty.now_us))
    empty.run()
    empty.kafka.create("payments", 1, topic_id="new")
    adopting = replace(
        empty.settings, adopt_topics=(AdoptTopic("payments", "new", None),), on_data_loss="accept"
    )
    empty.settings = replace(adopting, dedup_horizon_us=2 * HOUR_US)
    empty.run()
    empty.settings = adopting
    result = empty.prune(empty.now_us)
    assert isinstance(result.plan, PrunePlan), result
    empty.send(0, payment("more", empty.now_us))
    empty.run()
    assert empty.failures() == []


def test_a_run_that_wakes_up_before_its_mark_ends_well_behind_a_prune(
    empty: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps; the next run finishes it, others follow, and its record is pruned."""
    original = mark
    held: list[Callable[[], Any]] = []

    def slow(*given: Any) -> Any:
        held.append(lambda: original(*given))
        raise ProcessDied

    for partition in range(2):
        empty.send(partition, payment(f"old {partition}", NOW_US - 5 * HOUR_US))
    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(commit_module, "mark", slow)
        empty.run()
    for hours in (4, 3, 0):
        for partition in range(2):
            empty.send(partition, payment(f"{hours} {partition}", NOW_US - hours * HOUR_US))
        empty.run()
    result = empty.prune(NOW_US + 1)
    assert isinstance(result.plan, PrunePlan), result
    held[0]()
    assert empty.failures() == []
