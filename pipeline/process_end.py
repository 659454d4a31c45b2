"""The end of a process that runs a command."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn


def end_process(status: int) -> NoReturn:
    """Ends the process as the interpreter does, without its last steps.

    Threads are waited for, functions of `atexit` are called, output is flushed. But what is loaded
    is not destroyed object by object, a fifth of the CPU of a run of one message. mypy ends in the
    same way (https://github.com/python/mypy/blob/v1.15.0/mypy/util.py, hard_exit).
    """
    with suppress(KeyboardInterrupt):  # of the waiting: an impatient Ctrl-C
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for output in (sys.stdout, sys.stderr):
        if output is not None and not output.closed:
            with suppress(BrokenPipeError):  # who has read it is gone; the status is what it was
                output.flush()
    os._exit(status)
