"""Loads modules, without what is not used and without looking for garbage among them."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from runners.beam_loading import without_connectors
from transforms.model.collector import collector_paused


@contextmanager
def modules_load() -> Iterator[None]:
    """For `import` statements: Beam loads without what is not used, and Python's cycle collector is
    off, and exempts what they have made.

    Beam and what it needs are 2,000 modules, whose objects live as long as the process. The
    collector would visit them again and again while their number grows, and in each of its full
    collections afterwards (benchmarks/README.md, `direct_run`).
    """
    before = len(sys.modules)
    with collector_paused(), without_connectors():
        try:
            yield
        finally:
            # Where nothing was loaded, what lives is not of modules alone; some of it is garbage.
            if len(sys.modules) > before:
                gc.freeze()
                # An interpreter that destroys what it has loaded must find it.
                atexit.unregister(gc.unfreeze)
                atexit.register(gc.unfreeze)
