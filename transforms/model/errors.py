"""Errors that end a command, by the exit status they lead to."""

from __future__ import annotations

import re

_MARKER = re.compile(r"<<guarantee-error: (.*?) :guarantee-error>>", re.DOTALL)


class UsageError(ValueError):
    """Wrong flag, file or field: exit status 2.

    The message names the flag, its value, what is allowed and the fix.
    """


class GuaranteeError(RuntimeError):
    """The guarantee cannot be kept, so the run is refused or stopped: exit status 3.

    Runners hand a worker's exception back as text inside another exception; `find_in` reads the
    message out of it again, which is why `str()` of this class carries a marker on both sides. Use
    `.message` to show it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        return f"<<guarantee-error: {self.message} :guarantee-error>>"

    @staticmethod
    def find_in(error: BaseException) -> str | None:
        """The message of the GuaranteeError in `error`; None if there is none.

        `error` may be one, be caused by one, or carry one as text.
        """
        seen: BaseException | None = error
        while seen is not None:
            if isinstance(seen, GuaranteeError):
                return seen.message
            if found := _MARKER.search(str(seen)):
                return found.group(1)
            seen = seen.__cause__ or seen.__context__
        return None
