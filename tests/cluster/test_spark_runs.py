"""Bounded runs on a real Spark, from a real broker: without a fault, then each fault on the way.

Every test ends with the tables that the oracle says, coordinate by coordinate.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.spark.cluster import SparkServers
from runners.spark.job import running_jobs
from runners.spark.servers import JOB_SERVER
from tests.support import spark_faults as faults
from tests.support.payment_sender import PARTITIONS
from tests.support.spark_servers import SETTINGS, started
from tests.support.spark_stage import Stage, Start

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(700)]


def test_a_file_is_exact_run_after_run(
    spark: SparkServers, file_stage: Stage, spark_run: Start
) -> None:
    run = spark_run(file_stage, spark).run
    file_stage.send(20_000)
    assert run("--max_records_per_run=12000") == 0
    file_stage.assert_exact()
    file_stage.send(1_000)
    assert run() == 0
    file_stage.assert_exact()


def test_bigquery_is_exact_with_workers_of_their_own(
    spark: SparkServers, bigquery_stage: Stage, spark_run: Start, tmp_path: Path
) -> None:
    """The tables are asked for the ids once, by the command; the second run has them by files."""
    command = spark_run(bigquery_stage, spark, processes=True)
    bigquery_stage.send(20_000)
    assert command.run(f"--state_dir={tmp_path / 'ids'}") == 0
    bigquery_stage.assert_exact()
    assert faults.ids_asked(command.folder) == 1
    bigquery_stage.send(1_000)
    assert command.run(f"--state_dir={tmp_path / 'ids'}") == 0
    assert faults.ids_asked(command.folder) == 1
    bigquery_stage.assert_exact()


def test_a_step_that_raises_is_tried_again_by_spark(
    spark: SparkServers, file_stage: Stage, spark_run: Start
) -> None:
    points = (faults.READ, faults.APPEND, faults.BEFORE_REPORT, faults.AFTER_REPORT)
    file_stage.send(6_000)
    started_here = spark_run(file_stage, spark)
    assert started_here.run(faults=[f"{point}:1:{faults.RAISE}" for point in points]) == 0
    assert faults.happened(started_here.folder) == sorted(f"{point}-1" for point in points)
    assert "the run was lost" not in started_here.log
    file_stage.assert_exact()


def test_a_step_that_raises_again_and_again_says_what_python_says(
    spark: SparkServers, file_stage: Stage, spark_run: Start
) -> None:
    file_stage.send(500)
    failing = spark_run(file_stage, spark)
    always = [f"{faults.READ}:{number}:{faults.RAISE}" for number in range(1, 13)]
    assert failing.run(faults=always) == 4
    assert "FaultOfTheTest: at read" in failing.log
    assert ".java:" not in failing.log and "the run was lost" not in failing.log
    assert failing.run() == 0
    file_stage.assert_exact()


def test_a_worker_that_is_killed_costs_the_run_which_is_repeated(
    spark: SparkServers, bigquery_stage: Stage, spark_run: Start
) -> None:
    bigquery_stage.send(6_000)
    killed = spark_run(bigquery_stage, spark, processes=True)
    assert killed.run(faults=[f"{faults.APPEND}:1:{faults.DIE}"]) == 0
    assert faults.happened(killed.folder) == ["append-1"]
    assert ".java:" not in killed.log and "\tat " not in killed.log
    bigquery_stage.assert_exact()


def test_a_job_server_that_is_killed_is_waited_for(
    spark: SparkServers, file_stage: Stage, spark_run: Start
) -> None:
    file_stage.send(6_000)
    (server,) = spark.running(JOB_SERVER)
    killed = spark_run(file_stage, spark)
    child = killed.start(faults=[f"{faults.APPEND}:1:kill={server.pid}"])
    killed.wait_for("the job server is killed", lambda: not server.runs())
    killed.wait_for("it is waited for", lambda: "does not answer" in killed.log)
    assert child.poll() is None
    spark.start_job_server()
    assert killed.ended(child) == 0
    assert "the run was lost, and nothing of it is visible" in killed.log
    file_stage.assert_exact()


def test_a_client_that_is_killed_before_its_worker_has_connected_holds_nobody_up(
    spark: SparkServers, file_stage: Stage, spark_run: Start
) -> None:
    """Spark waits for that worker for ever, in the job of a client that is not there any more."""
    file_stage.send(500)
    killed = spark_run(file_stage, spark)
    child = killed.start(faults=[f"{faults.CONNECT}:1:{faults.HALT}"])
    killed.wait_for(
        "the worker is asked for", lambda: faults.happened(killed.folder) == ["connect-1"]
    )
    child.send_signal(signal.SIGKILL)
    again = spark_run(file_stage, spark)
    assert again.run() == 0
    file_stage.assert_exact()


def test_a_job_server_that_stays_away_is_said_with_its_address(
    spark: SparkServers, file_stage: Stage, spark_run: Start
) -> None:
    file_stage.send(10)
    waiting = spark_run(file_stage, spark)
    spark.kill_job_server()
    child = waiting.start()
    waiting.wait_for("it says so", lambda: "does not answer (UNAVAILABLE)" in waiting.log)
    child.send_signal(signal.SIGTERM)
    assert waiting.ended(child) == 143


@pytest.fixture(scope="module")
def other_spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkServers]:
    """One more job server, whose memory is too small for anything that a job caches."""
    evicts = "-Dspark.memory.fraction=0.001 -Dspark.testing.reservedMemory=1000000"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", evicts)
        servers = started(tmp_path_factory.mktemp("other"), SETTINGS)
    try:
        yield servers
    finally:
        servers.stop()


@pytest.mark.parametrize(
    ("where", "flag"),
    [("spark", "--cache_disabled"), ("other_spark", "--storage_level=MEMORY_ONLY")],
)
def test_what_is_evaluated_twice_is_written_once(
    where: str,
    flag: str,
    file_stage: Stage,
    spark_run: Start,
    request: pytest.FixtureRequest,
) -> None:
    """Without a cache, or with one that evicts all, both outputs of the reading step read Kafka."""
    file_stage.send(6_000)
    twice = spark_run(file_stage, request.getfixturevalue(where))
    assert twice.run(flag) == 0
    assert faults.ranges_read(twice.folder) > PARTITIONS
    file_stage.assert_exact()


def test_of_two_drivers_one_goes_on_and_the_other_is_refused(
    spark: SparkServers, other_spark: SparkServers, bigquery_stage: Stage, spark_run: Start
) -> None:
    bigquery_stage.send(3_000)
    slow, fast = spark_run(bigquery_stage, spark), spark_run(bigquery_stage, other_spark)
    child = slow.start(faults=[f"{faults.AFTER_REPORT}:1:{faults.STOP}"])
    slow.wait_for("it has reported", lambda: faults.happened(slow.folder) != [])
    assert fast.run() == 0
    os.killpg(child.pid, signal.SIGCONT)
    assert slow.ended(child) in (3, 5)
    bigquery_stage.assert_exact()


def test_a_signal_cancels_the_job_that_another_client_waits_for(
    spark: SparkServers, file_stage: Stage, spark_run: Start, tmp_path: Path
) -> None:
    file_stage.send(500)
    halted = spark_run(file_stage, spark)
    child = halted.start(faults=[f"{faults.APPEND}:1:{faults.HALT}"])
    halted.wait_for("it appends", lambda: faults.happened(halted.folder) == ["append-1"])
    assert running_jobs(spark.job_server_address, 15) == 1
    other = spark_run(file_stage, spark)
    waiting = other.start(f"--destination=duckdb:{tmp_path / 'other.duckdb'}")
    other.wait_for("it waits", lambda: "is busy with 1 other job(s)" in other.log)
    child.send_signal(signal.SIGTERM)
    assert halted.ended(child) == 143
    assert other.ended(waiting) == 0
    assert running_jobs(spark.job_server_address, 15) == 0
    assert halted.run() == 0
    file_stage.assert_exact()


def test_a_run_that_does_not_move_is_cancelled_and_repeated(
    spark: SparkServers, file_stage: Stage, spark_run: Start
) -> None:
    file_stage.send(500)
    stuck = spark_run(file_stage, spark)
    halt = f"{faults.APPEND}:1:{faults.HALT}"
    assert stuck.run("--no_progress_seconds=10", faults=[halt]) == 0
    assert "nothing has moved on Spark for 10 s (--no_progress_seconds)" in stuck.log
    file_stage.assert_exact()
