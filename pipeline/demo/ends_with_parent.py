"""Runs a command that ends with the process that has started it, however that one ends.

`python ends_with_parent.py PID COMMAND ...`, in a process group of its own: when the parent is not
PID any more, the whole group gets SIGKILL.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

_LOOK_SECONDS: Final = 0.3


def ending_with_this_process(command: Sequence[str]) -> list[str]:
    """The command to start in its place, with start_new_session=True."""
    return [sys.executable, __file__, str(os.getpid()), *command]


def main(parent: int, command: Sequence[str]) -> int:
    """Returns the exit status of the command."""
    # Signals to the group are meant for the command. Handlers, unlike SIG_IGN, are not inherited.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _not_meant)
    child = subprocess.Popen(command)
    while True:
        try:
            return child.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                os.killpg(os.getpgrp(), signal.SIGKILL)


def _not_meant(*_: object) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
