"""A DuckDB file that another process has open: whether a streaming job's worker is that process."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from transforms.model.errors import FileInUse

_MASTER: Final = re.compile(r"\0--flink_master[=\0]([^\0]+)")


def words_for_holder(error: FileInUse) -> str:
    """What to do where the file is held by `run --streaming`; "" where that is not known.

    The command line of a process is known on Linux only:
    https://man7.org/linux/man-pages/man5/proc_pid_cmdline.5.html
    """
    command = _command_of(error.pid)
    if not {"run", "--streaming"} <= set(command.split("\0")):
        return ""
    found = _MASTER.search(command)
    master = found[1] if found else "HOST:PORT"
    return (
        f" It is the worker of a streaming job: Ctrl-C there (or `kill -INT {error.pid}`) ends it"
        " with a savepoint, and meanwhile"
        f" `payment-pipeline status --destination=... --flink_master={master}` shows its counters."
    )


def _command_of(pid: int | None) -> str:
    """The arguments of the process, each ended by a null character; "" where they are unknown."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:  # no /proc, another user's process, or one that has just ended
        return ""
