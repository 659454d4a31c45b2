"""Where Beam puts the files that it makes for a job, and never removes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def temporary_files_in(folder: str) -> Iterator[None]:
    """What this process puts into the folder for temporary files goes into this one meanwhile.

    Beam makes a folder there for each environment of a pipeline and leaves it behind, which would
    be one for each tick of `--every`.
    """
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before
