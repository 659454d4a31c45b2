"""Two short schedules of the soak test (tests/soak), so that its harness is tried by every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from runners.flink.cluster import FlinkCluster
from tests.soak.job import play
from tests.soak.schedule import (
    ANSWERS,
    AWAY,
    BIGQUERY,
    BROKER,
    CLIENT,
    DUCKDB,
    TASK_MANAGER,
    WORKER,
    Fault,
    Schedule,
)
from tests.soak.servers import Servers
from tests.support.kafka_broker import KafkaBroker

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

PARTITIONS = 3


def schedule(destination: str, *faults: Fault) -> Schedule:
    return Schedule(
        seed=1, destination=destination, partitions=PARTITIONS, parallelism=1, records=1_500,
        horizon_us=300_000_000, checkpoint_ms=500, faults=faults, lost=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "plan",
    [
        schedule(
            DUCKDB, Fault(BROKER, 200, 0, True), Fault(TASK_MANAGER, 500, 0, False),
            Fault(CLIENT, 900, 0, False),
        ),
        schedule(
            BIGQUERY, Fault(ANSWERS, 200, 0, True), Fault(WORKER, 500, 0, False),
            Fault(AWAY, 900, 300, False),
        ),
    ],
    ids=lambda plan: plan.destination,
)  # fmt: skip
def test_the_tables_are_right_after_several_faults_in_one_run(
    plan: Schedule,
    flink_cluster: FlinkCluster,
    kafka_broker: KafkaBroker,
    fresh_topic: Callable[..., str],
    tmp_path: Path,
) -> None:
    topic = fresh_topic(partitions=PARTITIONS)
    played = play(plan, Servers(kafka_broker, flink_cluster), topic, tmp_path)
    assert played.wrong == []
    assert played.records > 1_000
