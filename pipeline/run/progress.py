"""A progress bar on a terminal: records read by this process, of those that the plan may hold."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transforms.read.read_records import records_read

WIDTH = 40


@contextmanager
def progress_bar(expected: int) -> Iterator[None]:
    """Draws to stderr ten times a second while the block runs, and leaves an empty line behind."""
    done = threading.Event()
    start = records_read()

    def draw() -> None:
        while not done.wait(0.1):
            share = min(1.0, (records_read() - start) / max(1, expected))
            bar = "#" * int(share * WIDTH)
            sys.stderr.write(f"\r[{bar:<{WIDTH}}] {share:4.0%} of {expected:,} records")
            sys.stderr.flush()

    thread = threading.Thread(target=draw, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        sys.stderr.write("\r" + " " * (WIDTH + 40) + "\r")
