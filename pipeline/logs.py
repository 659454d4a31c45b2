"""What a command writes to standard error: log lines as text or JSON, and the progress bar.

Both go through one lock, so no line is written into the bar.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pipeline.failures import failure_of

TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)

_OURS: Final = ("pipeline", "transforms", "runners")
_SAID_ALWAYS: Final = "pipeline.streaming"
"""A job runs for long: on a terminal too its lines stand above the counters."""


class Screen:
    """Standard error, whose last line may be a bar."""

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._bar = ""

    def line(self, text: str) -> None:
        """Writes a line, above the bar if there is one."""
        with self._guard:
            bar = self._bar
            self.draw("")
            sys.stderr.write(text + "\n")
            self.draw(bar)

    def draw(self, bar: str) -> None:
        """Puts the bar in the place of the last one, cut to the terminal's width; "" removes it."""
        with self._guard:
            if not bar and not self._bar:
                return
            bar = bar[: shutil.get_terminal_size().columns - 1]
            sys.stderr.write(f"\r{bar:<{len(self._bar)}}" + ("" if bar else "\r"))
            sys.stderr.flush()
            self._bar = bar


SCREEN: Final = Screen()


class _Handler(logging.Handler):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self.run_id: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if _is_said_at_the_end(record):
            return
        message = record.getMessage()
        raised = record.exc_info and "".join(traceback.format_exception(*record.exc_info)).rstrip()
        if self._as_json:
            more = {"traceback": raised} if raised else {}
            SCREEN.line(self.as_json(record.levelname, message, record.created, **more))
            return
        run = f" {self.run_id}" if self.run_id else ""
        SCREEN.line(
            f"{_utc(record.created)} {record.levelname}{run}: {message}"
            + (f"\n{raised}" if raised else "")
        )

    def as_json(self, level: str, message: str, created: float, **more: Any) -> str:
        return json.dumps(
            {
                "time": _utc(created),
                "level": level,
                "run_id": self.run_id,
                "message": message,
                **more,
            }
        )


def _is_said_at_the_end(record: logging.LogRecord) -> bool:
    """Whether a runner logs, with a traceback, what the command's last line says in plain words.

    Beam logs every error that passes through a step, also those that end a run as foreseen.
    """
    if not record.name.startswith("apache_beam") or record.levelno < logging.ERROR:
        return False
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, Exception):
        error = RuntimeError(record.getMessage())
    return not failure_of(error).traceback


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


_handlers: list[_Handler] = []


@contextmanager
def logged(log_format: str) -> Iterator[None]:
    """Within the block log lines go to standard error in that format.

    Lines of progress too, unless a bar shows it on a terminal.
    """
    handler = _Handler(log_format == JSON)
    level = logging.WARNING if shows_bar() and log_format == TEXT else logging.INFO
    before = {name: logging.getLogger(name).level for name in (*_OURS, _SAID_ALWAYS)}
    root = logging.getLogger()
    root.addHandler(handler)
    _handlers.append(handler)
    logging.captureWarnings(True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    logging.getLogger(_SAID_ALWAYS).setLevel(logging.INFO)
    try:
        yield
    finally:
        for name, old in before.items():
            logging.getLogger(name).setLevel(old)
        logging.captureWarnings(False)
        _handlers.remove(handler)
        root.removeHandler(handler)


def shows_bar() -> bool:
    """Whether standard error is a terminal, on which a bar can be drawn."""
    return sys.stderr.isatty()


def of_run(run_id: str) -> None:
    """From here on log lines of any thread carry the run's id; so does the command's last line."""
    for handler in _handlers:
        handler.run_id = run_id


def say_end(text: str, status: int, raised: str | None = None) -> None:
    """The last line of a command that did not end well, with its exit status in JSON.

    raised: the traceback of an error that was not foreseen.
    """
    handler = _handlers[-1] if _handlers else None
    if handler is not None and handler._as_json:
        more = {"traceback": raised} if raised else {}
        SCREEN.line(handler.as_json("ERROR", text, time.time(), exit_status=status, **more))
        return
    SCREEN.line((raised or "") + text)
