"""Ctrl-C: it stops a run cleanly wherever it comes, and waits where half of a step is the one thing
nobody wants.

A KeyboardInterrupt alone is not enough. Raised within a step of the graph, the runner wraps it into
an error of its own; raised within a callback or an import, it may be swallowed. So the signal is
remembered.
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
    """Within the block SIGINT is remembered, beside the KeyboardInterrupt that it raises. Outside
    the main thread it does nothing.
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
    """Whether SIGINT has come; whatever error followed is its consequence."""
    return _came.is_set()


def stop_if_interrupted() -> None:
    """Raises KeyboardInterrupt if one has been swallowed."""
    if _came.is_set():
        raise KeyboardInterrupt


@contextmanager
def finish_before_interrupt() -> Iterator[None]:
    """Holds SIGINT back until the block is done, then raises KeyboardInterrupt. Outside the main
    thread it does nothing: signals go there.
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
    logging.disable(
        logging.CRITICAL
    )  # the runner logs every step that the interrupt goes through as an error
    raise KeyboardInterrupt
