"""Ctrl-C stops a run cleanly at any moment; a step that must not stop half way finishes first.

A KeyboardInterrupt alone is not enough. Raised within a step of the graph, it is wrapped by the
runner into another error; raised within a callback or an import, it may be swallowed. So the signal
is also recorded.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_came = threading.Event()


@contextmanager
def interrupts_remembered() -> Iterator[None]:
    """Within the block SIGINT is recorded, and raises KeyboardInterrupt as usual.

    Outside the main thread it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        logging.disable(logging.NOTSET)
        _came.clear()


def was_interrupted() -> bool:
    """Whether SIGINT has come; an error after that is taken for its consequence."""
    return _came.is_set()


def stop_if_interrupted() -> None:
    """Raises KeyboardInterrupt if SIGINT has come, also where the first one was swallowed."""
    if _came.is_set():
        raise KeyboardInterrupt


@contextmanager
def finish_before_interrupt() -> Iterator[None]:
    """Holds SIGINT back until the block is done, then raises KeyboardInterrupt.

    Outside the main thread it does nothing: Python delivers signals to the main thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop_if_interrupted()
    held: list[int] = []

    def hold(number: int, _frame: FrameType | None) -> None:
        held.append(number)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        raise KeyboardInterrupt


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _came.set()
    # The runner logs an error for every step that the KeyboardInterrupt passes through.
    logging.disable(logging.CRITICAL)
    raise KeyboardInterrupt
