"""Ctrl-C and SIGTERM stop a run cleanly at any moment; a step that must not stop half way finishes
first.

A KeyboardInterrupt alone is not enough. Raised within a step of the graph, it is wrapped by the
runner into another error; raised within a callback or an import, it may be swallowed. So the signal
is also recorded.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_came: list[int] = []


@contextmanager
def interrupts_remembered() -> Iterator[None]:
    """Within the block SIGINT and SIGTERM are recorded, and raise KeyboardInterrupt.

    Outside the main thread it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        with _handled_by(_interrupt):
            yield
    finally:
        logging.disable(logging.NOTSET)
        _came.clear()


def interrupting_signal() -> int | None:
    """The first of SIGNALS that has come; an error after that is taken for its consequence."""
    return _came[0] if _came else None


def stop_if_interrupted() -> None:
    """Raises KeyboardInterrupt if a signal has come, also where the first one was swallowed."""
    if _came:
        raise KeyboardInterrupt


@contextmanager
def finish_before_interrupt() -> Iterator[None]:
    """Holds the signals back until the block is done; then the first one takes effect.

    Outside the main thread it does nothing: Python delivers signals to the main
    thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop_if_interrupted()
    held: list[int] = []
    with _handled_by(lambda number, _frame: held.append(number)):
        yield
    if held:
        signal.raise_signal(held[0])


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    _came.append(number)
    # The runner logs an error for every step that the KeyboardInterrupt passes through.
    logging.disable(logging.CRITICAL)
    raise KeyboardInterrupt
