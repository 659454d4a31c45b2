"""Ctrl-C at the wrong moment waits: the steps that make a run visible are short, and half of them is the one thing nobody wants."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def finish_before_interrupt() -> Iterator[None]:
    """Holds SIGINT back until the block is done, then raises KeyboardInterrupt. Outside the main thread it does nothing: signals go there."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    before = signal.signal(signal.SIGINT, remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt
