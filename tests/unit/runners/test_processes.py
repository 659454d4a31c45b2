"""A process is ended only if it is still the one that was started."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runners.flink import processes
from runners.flink.processes import ServerProcess, start_process

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def server(tmp_path: Path):
    process = start_process("sleeper", SLEEPS, tmp_path / "log", {})
    yield process
    process.kill()


def test_a_process_runs_until_it_is_killed(server: ServerProcess) -> None:
    assert server.runs()
    server.kill()
    assert not server.runs()
    server.kill()


def test_another_process_with_the_same_pid_is_left_alone(server: ServerProcess) -> None:
    before = replace(server, started="another boot:1")
    assert not before.runs()
    before.kill()
    assert server.runs()


def test_its_children_end_with_it(tmp_path: Path) -> None:
    starts_a_child = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'pid')!r} + '.new', 'w').write(str(child.pid))\n"
        f"import os; os.rename({str(tmp_path / 'pid')!r} + '.new', {str(tmp_path / 'pid')!r})\n"
        "time.sleep(600)\n"
    )
    server = start_process("parent", [sys.executable, "-c", starts_a_child], tmp_path / "log", {})
    try:
        processes_seen = 0
        while not (tmp_path / "pid").exists():
            processes_seen += 1
            assert server.runs() and processes_seen < 10**7
        child = int((tmp_path / "pid").read_text())
        os.kill(child, 0)
    finally:
        server.kill()
    for _ in range(10**6):
        if processes._start_time(child) is None:
            break
    assert processes._start_time(child) is None


def test_a_process_that_has_ended_does_not_run(tmp_path: Path) -> None:
    server = start_process("sleeper", SLEEPS, tmp_path / "log", {})
    os.kill(server.pid, signal.SIGKILL)
    processes._children[server.pid].wait(10)
    assert not server.runs()


def test_the_start_time_without_proc(monkeypatch: pytest.MonkeyPatch, server) -> None:
    """As on macOS, where `ps` says it."""
    monkeypatch.setattr(Path, "exists", lambda self: False)
    started = processes._start_time(server.pid)
    assert started and started == processes._start_time(server.pid)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(30)
    assert processes._start_time(gone.pid) is None
