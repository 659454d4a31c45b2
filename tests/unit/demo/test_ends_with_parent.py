"""What the demo starts ends with it, also when it is killed with kill -9."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from pipeline.demo.ends_with_parent import ending_with_this_process

STARTS_ONE_AND_WAITS = """
import subprocess, sys
from pipeline.demo.ends_with_parent import ending_with_this_process
command = [sys.executable, "-c", "print('here', flush=True); input()"]
subprocess.run(ending_with_this_process(command), start_new_session=True)
"""


def started(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_command_ends_when_its_parent_is_killed() -> None:
    parent = started(sys.executable, "-c", STARTS_ONE_AND_WAITS)
    assert parent.stdout is not None and parent.stdout.readline() == "here\n"
    parent.kill()
    # The end of all processes that have it closes the pipe.
    assert parent.communicate(timeout=30)[0] == ""


def test_it_returns_the_status_of_the_command() -> None:
    child = started(*ending_with_this_process([sys.executable, "-c", "exit(7)"]))
    assert child.wait(30) == 7


def test_a_signal_to_the_group_is_the_commands_own() -> None:
    waits = "import signal; print('here', flush=True); signal.pause()"
    child = started(*ending_with_this_process([sys.executable, "-c", waits]))
    assert child.stdout is not None and child.stdout.readline() == "here\n"
    os.killpg(child.pid, signal.SIGTERM)
    assert child.wait(30) == 256 - signal.SIGTERM
