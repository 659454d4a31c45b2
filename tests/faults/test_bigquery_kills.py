"""A real `run` process on a real broker, killed with SIGKILL at a call to BigQuery: before the call
arrives, or after it had its effect.
"""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.produce.message_generator import MessageGenerator
from tests.bigquery_stand_in import BigQueryStandIn, Call
from tests.bigquery_stand_in.clock import system_clock
from tests.faults.scenario import Scenario
from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.cluster

KILLED = -9


def statement(word: str) -> Callable[[Call], bool]:
    return lambda call: word in str(call.request)


ANY: Callable[[Call], bool] = lambda _call: True  # noqa: E731
# Step of docs/guarantees.md -> (call, which one, of those that meet a condition)
POINTS: dict[str, tuple[str, int, Callable[[Call], bool]]] = {
    "2 the ledger's root": ("jobs.insert", 1, statement("CREATE TABLE")),
    "2 genesis": ("jobs.insert", 1, statement("MERGE")),
    "3 one stream": ("CreateWriteStream", 3, ANY),
    "3 one append": ("AppendRows", 5, ANY),
    "4 finalize": ("FinalizeWriteStream", 2, ANY),
    "4 claim": ("jobs.insert", 2, statement("MERGE")),
    "5 payments": ("BatchCommitWriteStreams", 2, ANY),
    "5 duplicates": ("BatchCommitWriteStreams", 3, ANY),
    "5 totals": ("BatchCommitWriteStreams", 5, ANY),
    "6 mark committed": ("jobs.insert", 1, statement("UPDATE")),
}


@pytest.fixture
def scenario(
    kafka_broker: KafkaBroker,
    fresh_topic: Callable[..., str],
    tmp_path: Path,
    stand_in: BigQueryStandIn,
) -> Scenario:
    stand_in.clock = system_clock  # as the processes that are killed
    topic = fresh_topic(partitions=2)
    filled = Scenario(
        kafka_broker.bootstrap_servers,
        topic,
        tmp_path / "none",
        options=("--max_records_per_run=500",),
        stand_in=stand_in,
    )
    now_us = time.time_ns() // 1000
    filled.send(
        MessageGenerator(
            11, now_us - 600_000_000, duplicate_rate=0.1, invalid_rate=0.03, future_rate=0.02
        ).take(800)
    )
    return filled


@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("point", list(POINTS))
def test_a_run_killed_at_a_call_to_bigquery_loses_and_doubles_nothing(
    scenario: Scenario, stand_in: BigQueryStandIn, point: str, arrives: bool
) -> None:
    name, nth, when = POINTS[point]
    victim: list[Any] = []
    stand_in.faults.hook(
        name,
        lambda _call: os.kill(victim[0].pid, signal.SIGKILL),
        nth=nth,
        when=when,
        after=arrives,
    )
    if not arrives:
        stand_in.faults.cut(name, nth=nth, when=when)
    victim.append(scenario.start())
    output, status = victim[0].ended()
    assert status == KILLED, output
    stand_in.faults.clear()
    assert scenario.run() == 0, scenario.output
    scenario.holds()
