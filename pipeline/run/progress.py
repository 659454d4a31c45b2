"""How far a transaction has come: a bar on a terminal, else a log line every 30 seconds."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from pipeline.counted import counted
from pipeline.logs import shows_bar
from transforms.read.read_records import records_read

_LOG = logging.getLogger(__name__)

LINE_SECONDS: Final = 30.0


@dataclass(frozen=True)
class Place:
    """Which transaction of this command it is, as "transaction 2 of 4". of: as far as known now."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"transaction {self.number} of {max(self.number, self.of)}"


class Progress:
    """Records read by this process since the object was made, of those that the plan may hold.

    read: counts the records of this process. clock: monotonic, in seconds. is_here: whether this
    process reads them; else only the time is known.
    """

    def __init__(
        self,
        place: Place,
        expected: int,
        read: Callable[[], int] = records_read,
        clock: Callable[[], float] = time.monotonic,
        is_here: bool = True,
    ) -> None:
        self._is_here = is_here
        self._place = place
        self._expected = max(1, expected)
        self._count = read
        self._clock = clock
        self._before = read()
        self._started = clock()

    def share(self) -> float:
        """What has been read of what was expected, from 0 to 1."""
        return min(1.0, (self._count() - self._before) / self._expected)

    def figures(self) -> str:
        """Such as "transaction 2 of 4: 25% of 1,000,000 records, 50,000/s, 15 s left"."""
        read = self._count() - self._before
        seconds = self._clock() - self._started
        if not self._is_here:
            return (
                f"{self._place}: at most {counted(self._expected, 'record')}, {_duration(seconds)}"
                " so far; the workers are other processes"
            )
        rate = read / seconds if seconds > 0 else 0.0
        if read >= self._expected:
            left = "all read, being written"
        elif rate:
            left = f"{_duration((self._expected - read) / rate)} left"
        else:
            left = f"none read for {_duration(seconds)}"
        return (
            f"{self._place}: {self.share():.0%} of {counted(self._expected, 'record')},"
            f" {rate:,.0f}/s, {left}"
        )


@contextmanager
def progress_shown(place: Place, expected: int, is_here: bool = True) -> Iterator[None]:
    """Shows the progress while the block runs, and leaves no part of a bar behind.

    is_here: as of Progress.
    """
    progress = Progress(place, expected, is_here=is_here)
    with _bar(progress) if shows_bar() else _lines(progress):
        yield


def _bar(progress: Progress) -> AbstractContextManager[None]:
    # Without a terminal nothing needs rich, so it is imported here.
    from pipeline.run.progress_bar import bar_shown

    return bar_shown(progress.figures, progress.share)


@contextmanager
def _lines(progress: Progress) -> Iterator[None]:
    done = threading.Event()

    def show() -> None:
        while not done.wait(LINE_SECONDS):
            _LOG.info("%s", progress.figures())

    thread = threading.Thread(target=show, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
