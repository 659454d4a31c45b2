"""A process is ended only if it is still the one that was started."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runners import processes
from runners.processes import ServerProcess, start_process

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
        for _ in range(10**6):
            if (tmp_path / "pid").exists():
                break
            assert server.runs()
        child = int((tmp_path / "pid").read_text())
        assert server.children() == [child]
    finally:
        server.kill()
    for _ in range(10**6):
        if processes._start_time(child) is None:
            break
    assert processes._start_time(child) is None
    assert server.children() == []


def test_a_server_of_a_test_ends_with_the_tests_process(tmp_path: Path) -> None:
    starts_a_server = (
        "import sys\n"
        "from pathlib import Path\n"
        "from runners.processes import start_process\n"
        "from tests.support.child_process import ending_with_this_process\n"
        f"log, command = Path({str(tmp_path / 'log')!r}), ending_with_this_process({SLEEPS!r})\n"
        "print(start_process('x', command, log, {}).pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", starts_a_server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert parent.stdout and parent.stdin
    pid = int(parent.stdout.readline())
    assert processes._start_time(pid)
    parent.kill()
    parent.communicate(timeout=30)
    for _ in range(10**6):
        if processes._start_time(pid) is None:
            break
    assert processes._start_time(pid) is None


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
