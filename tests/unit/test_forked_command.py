"""A command that is forked behaves as one that an interpreter of its own runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.forked_command import ROOT, ForkedCommand

PROGRAM = "tests.support.forked_program"


def forked(module: str, arguments: list[str], folder: Path, **more: str) -> tuple[int, str, str]:
    """Its exit status, output and errors. more: variables."""
    output, errors = folder / "output", folder / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        variables = {**os.environ, **more}
        status = ForkedCommand(module, arguments, out, err, variables).wait(120)
    return status, output.read_text(), errors.read_text()


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["check", "--destination=duckdb:none.duckdb"], ["no such command"]],
    ids=str,
)
def test_it_ends_as_an_interpreter_of_its_own_does(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert forked("pipeline", arguments, tmp_path) == (done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("how", "status", "complaint"),
    [("returns", 0, ""), ("complains", 1, "a complaint"), ("raises", 1, "ValueError: an error")],
)
def test_threads_and_functions_at_the_end_come_to_theirs(
    how: str, status: int, complaint: str, tmp_path: Path
) -> None:
    ended, printed, complaints = forked(PROGRAM, [how], tmp_path, OF_THE_TEST="ä")
    assert ended == status
    said = [f"['{how}'] ä True ''", "a thread is waited for", "at the end"]
    assert printed.splitlines() == said
    assert complaints.strip().endswith(complaint)
    assert bool(complaints) == bool(complaint)


def test_a_kill_is_its_exit_status(tmp_path: Path) -> None:
    ended = forked(PROGRAM, ["is killed"], tmp_path, OF_THE_TEST="")
    assert ended == (-signal.SIGKILL, "", "")


def test_a_signal_reaches_it(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        command = ForkedCommand("http.server", ["--bind=127.0.0.1", "0"], output)
    assert command.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        command.wait(0)
    command.send_signal(signal.SIGTERM)
    assert command.wait(60) == -signal.SIGTERM == command.poll()
    command.send_signal(signal.SIGTERM)


def test_its_process_group_is_there_once_its_pid_is_known(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        for _ in range(20):
            command = ForkedCommand(PROGRAM, ["returns"], output, variables={"OF_THE_TEST": ""})
            os.killpg(command.pid, signal.SIGKILL)
            assert command.wait(10) == -signal.SIGKILL
