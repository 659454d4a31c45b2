"""The servers of a folder are known to every process that opens it, and end as a whole."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.processes import ClusterFailed
from runners.server_folder import ServerFolder

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]
UP = "payment-pipeline spark up"


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[ServerFolder]:
    folder = ServerFolder(tmp_path, UP)
    with folder.locked():
        folder.begin({"size": 3}, ("scratch", "kept"))
    yield folder
    if folder.exists:
        folder.end(())


def test_another_process_finds_what_was_started(servers: ServerFolder) -> None:
    servers.start("job server", SLEEPS, {})
    servers.start("worker", SLEEPS, {})
    other = ServerFolder(servers.folder, UP)
    assert other.exists and other.started_with == {"size": 3}
    assert other.running() == servers.processes
    assert [one.role for one in other.running("worker")] == ["worker"]
    assert Path(other.newest("job server").log).name == "job-server-1.log"


def test_all_of_them_end_at_once_and_what_is_of_no_use_goes(servers: ServerFolder) -> None:
    servers.start("worker", SLEEPS, {})
    started = servers.processes
    assert servers.end(("scratch",)) == started
    assert not started[0].runs()
    assert sorted(os.listdir(servers.folder)) == ["kept", "lock", "logs"]
    with pytest.raises(ClusterFailed, match="`payment-pipeline spark up` starts one"):
        _ = servers.started_with


def test_one_that_was_killed_is_forgotten(servers: ServerFolder) -> None:
    for _ in range(2):
        servers.start("worker", SLEEPS, {})
    first, second = servers.processes
    servers.kill_newest("worker")
    assert servers.processes == [first] and not second.runs()
    os.kill(first.pid, signal.SIGKILL)
    with pytest.raises(ClusterFailed, match="the worker has ended"):
        servers.wait_until(lambda: not servers.running(), 600, "x")
        servers.wait_until(lambda: False, 600, "x")
    servers.forget_ended()
    assert servers.processes == []
    with pytest.raises(ClusterFailed, match="no worker runs in"):
        servers.newest("worker")


def test_one_that_ends_at_its_start_says_why_in_one_line(servers: ServerFolder) -> None:
    fails = [sys.executable, "-c", "raise SystemExit('Error: the port is in use')"]
    with pytest.raises(ClusterFailed, match="ended"):
        servers.start("worker", fails, {})
        servers.wait_until(lambda: False, 600, "x")
