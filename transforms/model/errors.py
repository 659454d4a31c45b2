"""Errors that end a command, by the exit status they lead to."""

from __future__ import annotations

import re
from collections.abc import Iterator

_MARKER = re.compile(r"<<(guarantee-error|try-again-later): (.*?) :\1>>", re.DOTALL)


class UsageError(ValueError):
    """Wrong flag, file or field: exit status 2.

    The message names the flag, its value, what is allowed and the fix.
    """


class GuaranteeError(RuntimeError):
    """The run is refused or stopped, so that the guarantee is kept; a person must decide: status 3.

    Runners hand a worker's exception back as text inside another exception; `find_in` reads the
    message out of it again, which is why `str()` of this class carries a marker on both sides. Use
    `.message` to show it.
    """

    _mark = "guarantee-error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"<<{self._mark}: {self.message} :{self._mark}>>"

    @staticmethod
    def find_in(error: BaseException) -> GuaranteeError | None:
        """The GuaranteeError in `error`, of its own class; None if there is none.

        `error` may be one, be caused by one, or carry one as text.
        """
        for seen in causes(error):
            if isinstance(seen, GuaranteeError):
                return seen
            if found := _MARKER.search(str(seen)):
                kind = TryAgainLater if found[1] == TryAgainLater._mark else GuaranteeError
                return kind(found[2])
        return None


class TryAgainLater(GuaranteeError):
    """The run stops because of what passes without a decision: exit status 5.

    A file in use, a broker or service that does not answer, another run that was faster. The same
    command, started again later, goes on.
    """

    _mark = "try-again-later"


class FileInUse(TryAgainLater):
    """Another process has the file of the destination open.

    pid: of that process on this machine; None where it is not known.
    """

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and what it was raised from or while handling, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__
