"""What a command writes to standard error: log lines as text or JSON, above the progress bar."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pipeline.failures import failure_of

TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)

_OURS: Final = ("pipeline", "transforms", "runners")
_CANNOT_ERASE: Final = ("dumb", "unknown")
_SAID_ALWAYS: Final = "pipeline.streaming"
"""A job runs for long: on a terminal too its lines stand above the counters."""


_ways_above_a_bar: Final[list[Callable[[str], None]]] = []


def write_line(text: str) -> None:
    """Writes a line to standard error, above the progress bar if one is shown."""
    if _ways_above_a_bar:
        _ways_above_a_bar[-1](text)
    else:
        # One call, so that no other thread can write between the text and the end of the line.
        sys.stderr.write(text + "\n")


@contextmanager
def lines_written_by(above_bar: Callable[[str], None]) -> Iterator[None]:
    """Within the block a bar is shown, and above_bar writes each line above it."""
    _ways_above_a_bar.append(above_bar)
    try:
        yield
    finally:
        _ways_above_a_bar.remove(above_bar)


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
            write_line(self.as_json(record.levelname, message, record.created, **more))
            return
        run = f" {self.run_id}" if self.run_id else ""
        write_line(
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
    """Whether standard error is a terminal on which a bar can be drawn and removed again."""
    return sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in _CANNOT_ERASE


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
        write_line(handler.as_json("ERROR", text, time.time(), exit_status=status, **more))
        return
    write_line((raised or "") + text)
