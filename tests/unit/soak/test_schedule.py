"""A schedule of the soak test follows from its seed alone, and so does what is sent."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from tests.soak.schedule import BIGQUERY, DUCKDB, EVERYTHING, FAULTS, JOB_MANAGER, schedule_of
from tests.soak.traffic import COMMIT, End, Record, Send, Traffic
from transforms.model.rejected import FUTURE, LATE

SEEDS = range(1, 60)
NOW_US = 1_790_000_000_000_000


def records_of(seed: int) -> list[Record]:
    """All records of a schedule, in the order in which they are sent, as if none was aborted."""
    plan = schedule_of(seed)
    traffic = Traffic(plan, NOW_US)
    actions = [*traffic.early(), *itertools.islice(traffic.actions(), plan.records)]
    return [action.record for action in actions if isinstance(action, Send)]


def test_a_seed_gives_the_same_schedule_and_the_same_records() -> None:
    assert schedule_of(7) == schedule_of(7)
    assert records_of(7) == records_of(7)
    assert schedule_of(7).faults != schedule_of(8).faults


def test_the_seeds_draw_every_fault_of_both_destinations() -> None:
    for destination in (DUCKDB, BIGQUERY):
        kinds = {fault.kind for seed in SEEDS for fault in schedule_of(seed, destination).faults}
        assert kinds == set(FAULTS[destination])
    assert {schedule_of(seed).destination for seed in SEEDS} == {DUCKDB, BIGQUERY}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_faults_of_a_schedule_come_in_order_and_restart_all_servers_once(seed: int) -> None:
    plan = schedule_of(seed)
    moments = [fault.after for fault in plan.faults]
    assert 2 <= len(moments) <= 4
    assert moments == sorted(set(moments))
    assert 0 < moments[0] <= moments[-1] < plan.records
    kinds = Counter(fault.kind for fault in plan.faults)
    assert kinds[JOB_MANAGER] + kinds[EVERYTHING] <= 1


@pytest.mark.parametrize("seed", range(1, 10))
def test_no_copy_comes_when_its_id_may_have_expired_and_what_is_late_is_certain(seed: int) -> None:
    plan = schedule_of(seed)
    highest: dict[int, int] = {}
    oldest: dict[str, int] = {}
    kinds: Counter[str | None] = Counter()
    warm_up = Traffic(plan, NOW_US).warm_up
    surely_late = 0
    for number, record in enumerate(records_of(seed)):
        kinds[record.reason] += 1
        if number == warm_up:
            surely_late = min(highest.values()) - plan.horizon_us
        if record.event_us is None:
            continue
        if record.reason == LATE:
            assert record.event_us < surely_late
        elif record.reason == FUTURE:
            assert record.event_us > NOW_US + 3_600_000_000
        else:
            key = str(record.transaction_id)
            oldest[key] = min(record.event_us, oldest.get(key, record.event_us))
            assert oldest[key] >= max([0, *highest.values()]) - plan.horizon_us + 60_000_000
            kinds["copy"] += oldest[key] != record.event_us
            at = highest.get(record.partition, 0)
            highest[record.partition] = max(at, record.event_us)
    assert len(highest) == plan.partitions
    assert min(kinds[None], kinds[LATE], kinds[FUTURE], kinds["copy"]) > 0
    rejected = kinds.total() - kinds[None] - kinds["copy"]
    assert rejected / kinds.total() < 0.1
    assert max(highest.values()) < NOW_US


def test_transactions_end_in_every_way_and_never_overlap() -> None:
    traffic = Traffic(schedule_of(3), NOW_US)
    list(traffic.early())
    ends: Counter[str] = Counter()
    in_transaction = 0
    for action in itertools.islice(traffic.actions(), 5_000):
        if isinstance(action, End):
            assert in_transaction
            ends[action.how] += 1
            in_transaction = 0
        else:
            in_transaction += action.in_transaction
            assert in_transaction <= 15
    assert len(ends) == 3
    assert ends[COMMIT] > 10
