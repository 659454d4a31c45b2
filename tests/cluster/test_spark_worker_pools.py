"""Python workers that a server starts (EXTERNAL), on a real Spark, into BigQuery's stand-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runners.spark.cluster import SparkServers
from tests.support import spark_faults as faults
from tests.support.spark_stage import Stage, Start
from tests.support.worker_pool import WorkerPool

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(700)]


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Callable[..., WorkerPool]]:
    """Makes a pool, whose workers have faults. What it has started ends with the test."""
    made: list[WorkerPool] = []

    def make(*fault: str) -> WorkerPool:
        made.append(WorkerPool(tmp_path / "pool", faults.environment(tmp_path / "pool", *fault)))
        return made[-1]

    yield make
    for one in made:
        one.kill()


def test_a_worker_of_a_pool_is_killed_and_the_run_is_repeated(
    spark: SparkServers,
    bigquery_stage: Stage,
    spark_run: Start,
    pool: Callable[..., WorkerPool],
    tmp_path: Path,
) -> None:
    """A step that raises is tried again by Spark; a dead worker costs the run."""
    points = (f"{faults.READ}:1:{faults.RAISE}", f"{faults.APPEND}:2:{faults.DIE}")
    server = pool(*points)
    server.start()
    command = spark_run(bigquery_stage, spark, pool=server.address)
    command.wait_for("the pool answers", lambda: server.answers)
    bigquery_stage.send(6_000)
    assert command.run(f"--state_dir={tmp_path / 'ids'}") == 0
    assert faults.happened(tmp_path / "pool") == ["append-2", "read-1"]
    assert ".java:" not in command.log and "\tat " not in command.log
    bigquery_stage.assert_exact()
    bigquery_stage.send(500)
    assert command.run(f"--state_dir={tmp_path / 'ids'}") == 0
    assert faults.ids_asked(tmp_path / "pool") == 0
    bigquery_stage.assert_exact()


def test_a_pool_that_is_away_is_named_and_waited_for(
    spark: SparkServers, bigquery_stage: Stage, spark_run: Start, pool: Callable[..., WorkerPool]
) -> None:
    server = pool()
    command = spark_run(bigquery_stage, spark, pool=server.address)
    bigquery_stage.send(500)
    child = command.start()
    command.wait_for("it is missed", lambda: "the run was lost" in command.log)
    assert "the worker pool of --environment_config has started no Python worker" in command.log
    server.start()
    assert command.ended(child) == 0
    bigquery_stage.assert_exact()
