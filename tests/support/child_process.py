"""Children of the tests end with them, also when a test process is killed.

A function between fork and exec (subprocess's preexec_fn) could say so, but a process that uses
gRPC must not fork: its threads leave the child with half of their state, and now and then it aborts
before the exec. So the child says it itself, as its first step, and then becomes the command.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1


def ending_with_this_process(command: Sequence[str]) -> list[str]:
    """The command, for subprocess. Linux ties the child to the thread that starts it: start
    children in the main one.
    """
    return [sys.executable, __file__, str(os.getpid()), *command]


def end_with(parent: int) -> None:
    """This process ends when its parent does, whose pid that is; at once where it has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main(parent: int, command: Sequence[str]) -> None:
    end_with(parent)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
