"""What an error that has ended a command means: its exit status, and the line that says why."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import Final

from pipeline.file_in_use import words_for_holder
from transforms.model.errors import FileInUse, GuaranteeError, TryAgainLater, UsageError, causes

CHECK_FAILED: Final = 1
WRONG_USAGE: Final = 2
GUARANTEE_REFUSED: Final = 3
UNEXPECTED: Final = 4
TRY_AGAIN_LATER: Final = 5

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_TEXT: Final = re.compile(
    "|".join(re.escape(os.strerror(number)) for number in _FULL)
    # DuckDB's own limit for what it spills is a share of the free space.
    + "|max_temp_directory_size"
)


class JobFailed(RuntimeError):
    """A streaming job has ended by an error that is no question of the guarantee: status 4.

    The text says why, and how to go on.
    """


@dataclass(frozen=True)
class Failure:
    """status: the exit status; line: for standard error; traceback: whether to show it too."""

    status: int
    line: str
    traceback: bool = False


def failure_of(error: Exception) -> Failure:
    """What the error, or an error that it was made from, means."""
    reason = _full_disk(error)
    if isinstance(error, UsageError) and reason is None:
        return Failure(WRONG_USAGE, f"wrong usage: {error}")
    found = GuaranteeError.find_in(error)
    if isinstance(found, FileInUse):
        held = words_for_holder(found)
        return Failure(TRY_AGAIN_LATER, f"try again later: {found.message}{held}")
    if isinstance(found, TryAgainLater):
        return Failure(TRY_AGAIN_LATER, f"try again later: {found.message}")
    if found is not None:
        return Failure(GUARANTEE_REFUSED, f"stopped: {found.message}")
    if reason is not None:
        return Failure(
            GUARANTEE_REFUSED,
            f"stopped: the disk is full ({reason}). What is committed is correct, and nothing else"
            " is visible. Make room where the DuckDB file and the temporary files are (TMPDIR),"
            " then run again.",
        )
    if isinstance(error, JobFailed):
        return Failure(UNEXPECTED, str(error))
    return Failure(
        UNEXPECTED,
        "unexpected error: what is committed is correct, and the next run goes on from there",
        traceback=True,
    )


def _full_disk(error: Exception) -> str | None:
    """The system's or DuckDB's words for it; None where the error is another one."""
    for seen in causes(error):
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return str(seen)
        if line := next(filter(_FULL_TEXT.search, str(seen).splitlines()), None):
            return line.strip()
    return None
