"""A standalone Spark on this machine: executors killed, and nothing is left of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import cli
from runners.processes import ClusterFailed
from runners.spark import version
from runners.spark.cluster import SparkServers
from runners.spark.settings import SparkSettings
from tests.support import spark_faults as faults
from tests.support.child_process import ending_with_this_process
from tests.support.payment_sender import PARTITIONS
from tests.support.spark_servers import SETTINGS, spark_jars, started
from tests.support.spark_stage import Stage, Start

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(700)]


def processes_of(folder: Path) -> list[str]:
    shown = subprocess.run(
        ["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in shown.splitlines() if str(folder) in line]


def test_executors_that_are_killed_change_nothing(
    bigquery_stage: Stage, spark_run: Start, tmp_path: Path
) -> None:
    """The second one dies when its report is about to be saved, with outputs of the reading and the
    dedup stage in it: both are evaluated again.
    """
    folder = tmp_path / "cluster"
    servers = started(folder, SparkSettings(cores=2, max_records_per_run=200_000, cluster=True))
    try:
        bigquery_stage.send(6_000)
        killed = spark_run(bigquery_stage, servers, processes=True)
        points = (faults.APPEND, faults.BEFORE_REPORT)
        assert killed.run(faults=[f"{point}:1:{faults.KILL_PARENT}" for point in points]) == 0
        assert faults.happened(killed.folder) == sorted(f"{point}-1" for point in points)
        assert faults.ranges_read(killed.folder) > PARTITIONS
        bigquery_stage.assert_exact()
        assert len(servers.running()) == 4
        sent = [jar.stat().st_size for jar in (folder / "work").rglob("*.jar")]
        assert sum(sent) < 1 << 20, "the class path stays at home"
    finally:
        servers.stop()
    assert processes_of(folder) == []
    left = {"conf", "lock", "logs", "ports.json", "python-worker"}
    assert {path.name for path in folder.iterdir()} <= left


def test_up_status_and_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spark_jars()

    def spark(*arguments: str) -> tuple[int, str]:
        status = cli.main(["spark", arguments[0], f"--dir={tmp_path / 's'}", *arguments[1:]])
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    try:
        status, shown = spark("up", "--cores=3", "--max_records_per_run=4000000", "--json")
        assert status == 0, shown
        up = json.loads(shown)
        servers = SparkServers(tmp_path / "s")
        assert up["job_endpoint"] == servers.job_server_address
        assert up["master"] == "local[3,4]"
        (server,) = servers.running()
        arguments = Path(f"/proc/{server.pid}/cmdline").read_text()
        assert f"-Xmx{servers.settings.heap_mib}m" in arguments
        assert servers.settings.heap_mib > 3_000
        assert "--add-opens=java.base/sun.security.action=ALL-UNNAMED" in arguments
        assert json.loads(up["environment_config"])["command"].endswith("python-worker")
        status, shown = spark("status")
        assert status == 0 and " runs " in shown
        assert f"--job_endpoint={up['job_endpoint']}" in shown
        status, shown = spark("up")
        assert status == 3 and "spark down" in shown
        server.kill()
        status, shown = spark("status")
        assert status == 3 and "HAS ENDED" in shown and "1 server has ended: job server" in shown
    finally:
        status, shown = spark("down")
    assert status == 0
    nothing = f"nothing runs in {tmp_path / 's'}\n"
    assert spark("down") == spark("status") == (0, nothing)
    assert processes_of(tmp_path) == []


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    def broken(command: Sequence[str]) -> list[str]:
        return ending_with_this_process(
            [part + "Missing" if part == version.JOB_SERVER else part for part in command]
        )

    servers = SparkServers(tmp_path, launch=broken)
    spark_jars()
    with pytest.raises(ClusterFailed, match=r"the job server has ended: .*ClassNotFound") as failed:
        servers.start(SETTINGS)
    assert "\n" not in str(failed.value)
    assert not servers.exists
    assert processes_of(tmp_path) == []
