import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from pipeline.produce.message_generator import MessageGenerator
from tests.faults.crashing_run import ANY_CALL, STEPS
from tests.faults.scenario import Scenario
from tests.support.kafka_broker import KafkaBroker

pytestmark = pytest.mark.cluster

KILLED = -9
# In the second transaction where a step comes once in each, so that state is carried over a crash
# as well.
CALLS = {
    "1 remove leftovers": 1,
    "1 recover": 1,
    "2 genesis": 1,
    "3 one append": 9,
    "5 commit a table": 6,
    "5 commit, inside": 6,
    "4 claim, inside": 3,
}


@pytest.fixture
def scenario(
    kafka_broker: KafkaBroker, fresh_topic: Callable[..., str], tmp_path: Path
) -> Scenario:
    """Three partitions, 1,500 messages, so two transactions of at most 800."""
    filled = Scenario(
        kafka_broker.bootstrap_servers,
        fresh_topic(partitions=3),
        tmp_path / "payments.duckdb",
        options=("--max_records_per_run=800",),
    )
    now_us = time.time_ns() // 1000
    filled.send(
        MessageGenerator(
            7, now_us - 600_000_000, duplicate_rate=0.1, invalid_rate=0.03, future_rate=0.02
        ).take(1500)
    )
    return filled


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("step", list(STEPS))
def test_a_run_killed_at_any_step_loses_and_doubles_nothing(
    scenario: Scenario, step: str, moment: str
) -> None:
    if step == "1 remove leftovers":
        assert scenario.run() == 0, "a first run has none to remove"
    assert (
        scenario.run("tests.faults.crashing_run", step, moment, str(CALLS.get(step, 2))) == KILLED
    ), scenario.output
    after_the_kill = scenario.check()
    assert "FAILED" not in after_the_kill.values(), after_the_kill
    assert scenario.run() == 0, scenario.output
    scenario.holds()


@pytest.mark.parametrize("call", range(1, 6))
def test_a_run_killed_between_the_commits_of_two_tables_is_rolled_forward_as_a_whole(
    scenario: Scenario, call: int
) -> None:
    assert (
        scenario.run("tests.faults.crashing_run", "5 commit a table", "after", str(call)) == KILLED
    )
    if call < 5:
        assert scenario.check()["run in flight"] == "noted"
    assert scenario.run() == 0, scenario.output
    scenario.holds()


def test_a_run_that_is_killed_again_and_again_gets_there(scenario: Scenario) -> None:
    for step in ("3 one append", "4 prepare", "5 commit, inside", "1 recover", "6 mark committed"):
        assert scenario.run("tests.faults.crashing_run", step, "after", "1") == KILLED, (
            scenario.output
        )
    assert scenario.run() == 0, scenario.output
    scenario.holds()


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_random_moments_loses_and_doubles_nothing(
    scenario: Scenario, tmp_path: Path, seed: int
) -> None:
    """Between any two calls of our own code, in any thread. A killed run is started again, and
    killed again.
    """
    other, calls = replace(scenario, database=tmp_path / "other.duckdb"), tmp_path / "calls"
    assert other.run("tests.faults.crashing_run", ANY_CALL, "count", str(calls)) == 0, other.output
    random, statuses = Random(seed), []
    for _ in range(4):
        moment = random.randrange(1, int(calls.read_text()))
        statuses.append(scenario.run("tests.faults.crashing_run", ANY_CALL, "before", str(moment)))
        # A run that follows a killed one may have less to do, and end before its moment comes.
        assert statuses[-1] in (KILLED, 0), scenario.output
        if scenario.database.exists():
            assert "FAILED" not in scenario.check().values(), scenario.output
    assert KILLED in statuses
    assert scenario.run() == 0, scenario.output
    scenario.holds()


@pytest.mark.parametrize(
    ("step", "moment"),
    [("3 one append", "after"), ("4 prepare", "after"), ("5 commit a table", "after")],
)
def test_a_run_that_adopts_a_recreated_topic_is_killed(
    scenario: Scenario, recreate_topic: Callable[..., None], step: str, moment: str
) -> None:
    """The new topic has most messages of the old one again, and some more."""
    assert scenario.run() == 0, scenario.output
    recreate_topic(scenario.topic, partitions=2)
    # Not all: `check` allows one duplicate for each payment.
    mirrored, now_us = scenario.sent[:-200], time.time_ns() // 1000
    scenario.send(mirrored + MessageGenerator(8, now_us - 600_000_000).take(300))
    assert scenario.run() == 3
    flag = re.search(r"--adopt_topic=\S+", scenario.output)
    assert flag is not None, scenario.output
    adopting = replace(scenario, options=(*scenario.options, flag[0], "--on_data_loss=accept"))
    assert adopting.run("tests.faults.crashing_run", step, moment, "1") == KILLED, adopting.output
    assert "FAILED" not in adopting.check().values(), adopting.output
    assert adopting.run() == 0, adopting.output
    assert scenario.run() == 0, scenario.output
    assert scenario.check()["adopted topics"] == "noted"
    assert "FAILED" not in scenario.check().values(), scenario.output
    scenario.agrees_with_the_oracle()


def test_two_runs_at_once_into_one_destination(scenario: Scenario) -> None:
    """One has the file; the other waits for a moment, then goes on behind it or gives up: a run of
    the same predecessor has claimed it (3), or the file is not free in time (5). Neither doubles
    anything.
    """
    runs = [scenario.start(), scenario.start()]
    ends = [process.ended() for process in runs]
    statuses = sorted(status for _, status in ends)
    assert statuses in ([0, 0], [0, 3], [0, 5]), ends
    assert scenario.run() == 0
    scenario.holds()


def test_a_second_run_without_new_messages_changes_nothing(scenario: Scenario) -> None:
    assert scenario.run() == 0, scenario.output
    before = scenario.tables()
    assert scenario.run() == 0
    assert "Nothing new" in scenario.output
    assert scenario.tables() == before
    scenario.holds()
