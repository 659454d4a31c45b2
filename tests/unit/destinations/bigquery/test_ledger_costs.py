"""What a run reads of the ledger is billed by its partitions, one for each day."""

from __future__ import annotations

import msgspec

from tests.bigquery_stand_in import BigQueryStandIn, ManualClock
from tests.support.in_memory_kafka import HOUR_US, NOW_US
from tests.unit.destinations.contract.run_ledger import record
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS
from transforms.destinations.contract.run_tail import with_landmarks

RUNS_A_DAY = 24
DAYS = 4


def test_a_run_reads_the_same_bytes_of_the_ledger_on_each_day(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    clock = stand_in.clock
    assert isinstance(clock, ManualClock)
    genesis = record(GENESIS, None, COMMITTED)
    assert destination.runs.claim(msgspec.structs.replace(genesis, plan_time=NOW_US))
    costs = []
    for number in range(1, DAYS * RUNS_A_DAY):
        clock.advance(hours=24 / RUNS_A_DAY)
        before = destination.bytes_read
        runs = destination.runs.tail()
        following = msgspec.structs.replace(
            record(f"run-{number:04}", runs[-1].run_id),
            plan_time=NOW_US + number * 24 * HOUR_US // RUNS_A_DAY,
        )
        assert destination.runs.claim(with_landmarks(following, runs))
        destination.runs.mark(following.run_id, COMMITTED)
        costs.append(destination.bytes_read - before)
    second, *later = [costs[day * RUNS_A_DAY : (day + 1) * RUNS_A_DAY] for day in range(1, DAYS)]
    assert all(day == second for day in later[:-1])
    assert len(destination.runs.read()) == DAYS * RUNS_A_DAY
    assert max(costs) < 2 * max(second)
