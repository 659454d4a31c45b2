"""The end of Beam's worker in this process (LOOPBACK), without the noise that it makes.

When the runner's side of a connection ends (a server is killed, the job is cancelled), each thread
of the worker prints the gRPC error that it has met, and each bundle in hand fails by it. None of
these says more than what the runner reports as the cause, which the command shows.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from weakref import WeakSet

import grpc
from apache_beam.runners.worker import sdk_worker

_LOGGERS: Final = tuple(
    f"apache_beam.runners.{name}" for name in ("common", "worker.data_plane", "worker.sdk_worker")
)
_WORKER: Final = "run_worker_"
_THREADS: Final = (_WORKER, "read_grpc_client_inputs", "read_state", "forward_grpc_outputs")
_FRAMES: Final = re.compile(r'^ +File "([^"]+)"', re.MULTILINE)
_BROKEN: Final = re.compile(
    r"^(?:grpc\.|.*RPC that terminated with|RuntimeError: Channel closed prematurely"
    r"|RuntimeError: Unknown process bundle instruction id)",
    re.MULTILINE,
)
"""The last is what Beam's Java side answers to a state request of a bundle that it has given up."""

_BROKEN_OFF: Final[WeakSet[sdk_worker.SdkHarness]] = WeakSet()
"""Beam's workers in this process, but those that have ended in good order."""


@contextmanager
def broken_connections_hidden() -> Iterator[None]:
    """Within the block errors of connections to the runner are not printed; all others are, once.

    Beam prints each error of a bundle to standard error and logs it as well: the log is enough.
    """
    run, hook = sdk_worker.SdkHarness.run, threading.excepthook
    loggers = [logging.getLogger(name) for name in _LOGGERS]

    def shown(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else ""
        if not (name.startswith(_THREADS) and isinstance(failed.exc_value, grpc.RpcError)):
            hook(failed)

    def known(harness: sdk_worker.SdkHarness) -> None:
        _BROKEN_OFF.add(harness)
        run(harness)
        _BROKEN_OFF.discard(harness)

    threading.excepthook = shown
    sdk_worker.SdkHarness.run = known
    vars(sdk_worker)["print"] = _print_nothing
    for logger in loggers:
        logger.addFilter(_says_more)
    try:
        yield
    finally:
        threading.excepthook = hook
        sdk_worker.SdkHarness.run = run
        _BROKEN_OFF.clear()
        vars(sdk_worker).pop("print", None)
        for logger in loggers:
            logger.removeFilter(_says_more)


def end_worker(seconds: float) -> bool:
    """Waits until the worker of a job that has ended has ended too, and tears it down.

    Beam leaves the teardown of the steps out where its connection has broken; a DuckDB file would
    stay open. False: the worker still runs after so many seconds.
    """
    deadline = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name.startswith(_WORKER):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                return False
    while _BROKEN_OFF:
        _BROKEN_OFF.pop()._bundle_processor_cache.shutdown()
    return True


def _says_more(record: logging.LogRecord) -> bool:
    """Whether a log record of the worker is about more than a connection of Beam's own.

    The last of the chained errors counts, and where it was raised: a connection of a destination
    may break as well.
    """
    raised = record.exc_info and "".join(traceback.format_exception(*record.exc_info))
    _, found, last = (raised or record.getMessage()).rpartition("Traceback (most recent call last)")
    frames = [file for file in _FRAMES.findall(last) if "/grpc/" not in file]
    in_beam = bool(frames) and "apache_beam" in frames[-1]
    return not (found and in_beam and _BROKEN.search(last))


def _print_nothing(*_: object, **__: object) -> None:
    """In the place of `print` in Beam's module."""
