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
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_came: list[int] = []
_meaning: list[str] = []


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
        _meaning.clear()


def interrupting_signal() -> int | None:
    """The signal that has come; an error after that is taken for its consequence.

    SIGTERM outranks SIGINT: of two that come at one moment, Python runs the lower one first.
    """
    return max(_came, default=None)


def interrupt_means(text: str) -> None:
    """What the command's last line says of an interrupt from here on, not its usual text."""
    _meaning.append(text)


def meaning_of_interrupt(usual: str) -> str:
    """The newest text of `interrupt_means`, else the usual one."""
    return _meaning[-1] if _meaning else usual


def stop_if_interrupted() -> None:
    """Raises KeyboardInterrupt if a signal has come, also where the first one was swallowed."""
    if _came:
        raise KeyboardInterrupt


@contextmanager
def finish_before_interrupt(signals: Collection[int] = SIGNALS) -> Iterator[None]:
    """Holds these signals back until the block is done; then they take effect, as one, also where
    the block has failed.

    Outside the main thread it does nothing: Python delivers signals to the main
    thread only.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop_if_interrupted()
    held: list[int] = []
    try:
        with _handled_by(lambda number, _frame: held.append(number), signals):
            yield
    finally:
        if held:
            signal.raise_signal(max(held))


def only_record_signals() -> None:
    """From here to the end of `interrupts_remembered`: the end of the command is being said."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, lambda came, _frame: _came.append(came))


@contextmanager
def _handled_by(
    handler: Callable[[int, FrameType | None], Any], signals: Collection[int] = SIGNALS
) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number in signals}
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
