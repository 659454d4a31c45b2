"""`flink down` and `flink status` of a cluster whose servers a test has made up."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pipeline import cli
from runners.flink.cluster import FlinkCluster
from runners.flink.configuration import ClusterPorts, ClusterSettings
from runners.flink.servers import JOB_MANAGER, TASK_MANAGER
from runners.processes import ServerProcess
from tests.support.fake_flink import NAME, FakeFlink

DEAD = 2**22 + 1
"""Above the highest process id: https://man7.org/linux/man-pages/man5/proc_sys_kernel.5.html"""


@pytest.fixture
def flink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFlink:
    """Runs one job. Of its cluster the JobManager runs and the TaskManager does not."""
    servers = [
        ServerProcess(role, DEAD, "then", str(tmp_path / f"logs/{role}-1.log"))
        for role in (JOB_MANAGER, TASK_MANAGER)
    ]
    ports = ClusterPorts(1, 2, 3, 4, ())
    record = {
        "started_with": {"settings": asdict(ClusterSettings()), "ports": asdict(ports)},
        "processes": [asdict(server) for server in servers],
    }
    (tmp_path / "cluster.json").write_text(json.dumps(record))
    double = FakeFlink()
    monkeypatch.setattr(FlinkCluster, "rest", double)
    monkeypatch.setattr(ServerProcess, "runs", lambda one: one.role == JOB_MANAGER)
    monkeypatch.setattr(ServerProcess, "kill", lambda one: None)
    return double


def ran(tmp_path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    status = cli.main(["flink", *arguments, f"--dir={tmp_path}"])
    return status, capsys.readouterr().out


@pytest.mark.usefixtures("flink")
def test_a_server_that_has_ended_is_status_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown = ran(tmp_path, capsys, "status")
    assert status == 3
    (line,) = [line for line in shown.splitlines() if "HAS ENDED" in line]
    assert TASK_MANAGER in line and line.endswith(f"logs/{TASK_MANAGER}-1.log")
    assert shown.splitlines()[-1].startswith("1 server has ended: TaskManager.")
    status, shown = ran(tmp_path, capsys, "status", "--json")
    found = json.loads(shown)
    assert (status, found["exit_status"]) == (3, 3)
    assert "flink down" in found["error"]
    assert [server["runs"] for server in found["servers"]] == [True, False]


def test_down_names_the_jobs_that_end_with_the_cluster(
    flink: FakeFlink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, shown = ran(tmp_path, capsys, "down")
    assert status == 0
    first, job, on = shown.splitlines()
    assert first.startswith("ended 1 server of")
    assert job == f"ended with it: job {NAME}, which was RUNNING"
    assert "--restore=latest" in on and "stop --lost" in on
    assert ran(tmp_path, capsys, "down")[1] == f"nothing runs in {tmp_path}\n"


@pytest.mark.parametrize("change", [{"answers": False}, {"state": "CANCELED"}], ids=str)
def test_down_goes_on_where_no_job_is_known(
    flink: FakeFlink,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, object],
) -> None:
    vars(flink).update(change)
    status, shown = ran(tmp_path, capsys, "down", "--json")
    assert status == 0
    assert json.loads(shown)["ended_jobs"] == []


def test_a_job_of_another_program_is_named_without_our_commands(
    flink: FakeFlink, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flink.name = "WordCount"
    assert ran(tmp_path, capsys, "down")[1].splitlines()[1:] == [
        "ended with it: job WordCount, which was RUNNING"
    ]
