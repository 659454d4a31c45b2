"""`spark up`, `spark status` and `preflight` on Spark, without any Spark."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline import preflight as preflight_module
from pipeline.check.result import LATER, PASSED
from pipeline.cli import main
from pipeline.preflight import preflight
from runners.spark.profile import SPARK
from runners.spark.servers import job_server, master_url, worker
from runners.spark.settings import SparkPorts, SparkSettings
from tests.support.fake_job_server import fake_job_server
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config

PORTS = SparkPorts(1, 2, 3, (4, 5), (6, 7))


@pytest.fixture
def jars(tmp_path: Path) -> Path:
    (tmp_path / "conf").mkdir()
    (tmp_path / "one.jar").write_bytes(b"")
    return tmp_path


def test_without_java_one_line_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JAVA_HOME", "/no/java/here")
    assert main(["spark", "up", f"--dir={tmp_path / 's'}"]) == 3
    shown, said = capsys.readouterr()
    assert shown == "" and len(said.splitlines()) == 1
    assert "Java 17 is missing (below JAVA_HOME=/no/java/here)" in said
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "allowed are spark up"),
        (["off"], "allowed are spark up"),
        (["up", "--cores=0"], "--cores=0"),
        (["up", "--max_records_per_run=none"], "--max_records_per_run=none"),
    ],
)
def test_wrong_usage(
    arguments: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = [f"--dir={tmp_path}"] if arguments[1:] else []
    assert main(["spark", *arguments, *folder]) == 2
    assert why in capsys.readouterr().err


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["spark", "status", f"--dir={tmp_path}"]) == 0
    assert capsys.readouterr().out == f"nothing runs in {tmp_path}\n"


def test_the_heap_goes_with_the_records_of_a_run() -> None:
    """4,000,000 records were too many for 2 GiB, and came through with 3."""
    assert 3_000 < SparkSettings(max_records_per_run=4_000_000).heap_mib < 3_200
    assert SparkSettings(max_records_per_run=1).heap_mib == 513
    in_cluster = SparkSettings(max_records_per_run=4_000_000, cluster=True)
    assert in_cluster.heap_mib < 2_000 and in_cluster.job_server_heap_mib == 512


def test_a_task_is_tried_again_whatever_the_master(jars: Path) -> None:
    assert master_url(SparkSettings(cores=3), PORTS) == "local[3,4]"
    cluster = SparkSettings(cores=4, cluster=True)
    command = job_server(jars, jars, cluster, PORTS)
    assert "-Dspark.master=spark://127.0.0.1:2" in command
    assert "-Dspark.task.maxFailures=4" in command
    assert "--cores 2" in " ".join(worker(1, jars, jars, cluster, PORTS))


@pytest.mark.parametrize("cluster", [False, True])
def test_what_every_job_needs_is_in_the_job_server(cluster: bool, jars: Path) -> None:
    command = job_server(jars, jars, SparkSettings(cluster=cluster), PORTS)
    assert "--add-opens=java.base/sun.security.action=ALL-UNNAMED" in command
    assert "-Dspark.serializer=org.apache.spark.serializer.KryoSerializer" in command
    assert any("SparkRunnerKryoRegistrator" in part for part in command)
    # All jars are there by an agent: what is in the class path would go to each executor.
    assert command[command.index("-cp") + 1] == str(jars / "one.jar")
    opened = [part for part in command if "java.security.jgss/sun.security.krb5" in part]
    assert len(opened) == (2 if cluster else 1), "executors get the same list"


def test_a_kept_context_is_asked_for(jars: Path) -> None:
    kept = "-Dbeam.spark.test.reuseSparkContext=true"
    assert kept not in job_server(jars, jars, SparkSettings(), PORTS)
    assert kept in job_server(jars, jars, SparkSettings(keep_context=True), PORTS)


def test_preflight_asks_the_job_server(
    kafka: InMemoryKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "KafkaAdmin", kafka)
    kafka.create("payments", 1)

    def asked(address: str) -> tuple[str, str]:
        options = PipelineOptions(["--runner=SparkRunner", f"--job_endpoint={address}"])
        settings = config(tmp_path / "p.duckdb", runner=SPARK, beam_options=options)
        (found,) = [
            result
            for result in preflight(settings, lambda: NOW_US)
            if result.name == "--runner=SparkRunner"
        ]
        return found.status, found.figure

    with fake_job_server(others=(1,)) as server:
        status, figure = asked(server.address)
        assert status == PASSED and "has 1 job(s) in hand" in figure
        address = server.address
    status, figure = asked(address)
    assert status == LATER and "does not answer" in figure
