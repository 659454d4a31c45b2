"""CPU clocks in the steps of a process: SECONDS holds what each step has taken.

Steps of one stage are fused: each runs inside the loop that consumes the one before, or calls the
next one. So every function is timed on the CPU clock of its thread, a generator between its own
`next` and its own `yield`, and what a step inside it takes counts for that step alone.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SECONDS: Counter[str] = Counter()
KAFKA_THREADS = "librdkafka's threads"

_TICKS = 100
_adding = threading.Lock()


class _Inside(threading.local):
    """CPU seconds of the steps that ran inside the step which this thread is in."""

    seconds = 0.0


_inside = _Inside()


@contextmanager
def clock(step: str) -> Iterator[None]:
    """Counts what this thread does within the context, but for other clocks within."""
    before, _inside.seconds = _inside.seconds, 0.0
    started = time.thread_time()
    try:
        yield
    finally:
        took = time.thread_time() - started
        add(step, took - _inside.seconds)
        _inside.seconds = before + took


def add(step: str, seconds: float) -> None:
    """Several threads may be in one step."""
    with _adding:
        SECONDS[step] += seconds


def measure(owner: Any, method: str, step: str) -> None:
    """Puts a clock around `owner.method`, whether it is a function or a generator."""
    original = getattr(owner, method)

    @functools.wraps(original)
    def timed(*arguments: Any, **named: Any) -> Any:
        with clock(step):
            result = original(*arguments, **named)
        return _timed_generator(result, step) if isinstance(result, Iterator) else result

    setattr(owner, method, timed)


def _timed_generator(inner: Iterator[Any], step: str) -> Iterator[Any]:
    while True:
        with clock(step):
            try:
                item = next(inner)
            except StopIteration:
                return
        yield item


def measure_process(owner: Any, method: str, step: str) -> None:
    """As `measure`, but the CPU seconds of the whole process.

    For steps that run alone, and partly in threads of the destination.
    """
    original = getattr(owner, method)

    @functools.wraps(original)
    def timed(*arguments: Any, **named: Any) -> Any:
        started = time.process_time()
        try:
            return original(*arguments, **named)
        finally:
            add(step, time.process_time() - started)

    setattr(owner, method, timed)


def start_up_ends_with(owner: Any, method: str) -> None:
    """Counts the CPU seconds of the process until the first call as the step "start-up"."""
    original = getattr(owner, method)

    @functools.wraps(original)
    def first(*arguments: Any, **named: Any) -> Any:
        with _adding:
            SECONDS.setdefault("start-up", time.process_time())
        return original(*arguments, **named)

    setattr(owner, method, first)


def thread_seconds() -> dict[tuple[int, str], float]:
    """(id, name) of each thread of this process, as the system has them -> its CPU seconds."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        # A thread may end meanwhile.
        with suppress(OSError):
            name, _, fields = task.joinpath("stat").read_text().partition("(")[2].rpartition(")")
            found[int(task.name), name] = sum(map(int, fields.split()[11:13])) / _TICKS
    return found
