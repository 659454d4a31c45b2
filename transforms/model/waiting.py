"""A long wait for another system says what is waited for, so that silence is never a riddle."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_LOG = logging.getLogger(__name__)

FIRST_LINE_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 1.0


class Waits:
    """The waits of this process. A line each after 15, 30, 60, 120... seconds.

    clock: monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._open: dict[int, _Wait] = {}

    @contextmanager
    def waiting_for(
        self, what: str, reason: Callable[[], str | None] = lambda: None
    ) -> Iterator[None]:
        """Around a call that another system may keep waiting.

        what: such as "BigQuery: a query". reason: why it takes long, if that is known by then.
        """
        number = next(self._numbers)
        with self._guard:
            self._open[number] = _Wait(what, reason, self._clock())
        try:
            yield
        finally:
            with self._guard:
                del self._open[number]

    def look(self) -> None:
        """Logs a line for each wait whose next line is due."""
        now = self._clock()
        with self._guard:
            due = [wait for wait in self._open.values() if now - wait.since >= wait.next_line]
        for wait in due:
            waited, why = now - wait.since, wait.reason()
            wait.next_line = 2 * max(wait.next_line, waited)
            _LOG.warning(
                "still waiting for %s: %.0f s so far%s",
                wait.what,
                waited,
                f" ({why})" if why else "",
            )


class _Wait:
    def __init__(self, what: str, reason: Callable[[], str | None], since: float) -> None:
        self.what = what
        self.reason = reason
        self.since = since
        self.next_line = FIRST_LINE_SECONDS


_WAITS: Final = Waits()
_STARTED = threading.Lock()


@contextmanager
def waiting_for(what: str, reason: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Waits.waiting_for of this process, which a thread looks at every second."""
    if _STARTED.acquire(blocking=False):
        threading.Thread(target=_look_on, name="waits", daemon=True).start()
    with _WAITS.waiting_for(what, reason):
        yield


def _look_on() -> None:
    while True:
        time.sleep(_LOOK_SECONDS)
        _WAITS.look()
