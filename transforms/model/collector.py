"""Python's cycle collector, kept from visiting many objects of which none is garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """The collector is off within this context.

    It would visit thousands of short-lived messages, none of which is part of a cycle, which takes
    half of the reading time; or the modules of Beam, while their number grows.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
