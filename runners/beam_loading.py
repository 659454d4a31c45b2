"""Beam without its connectors to clouds, which take half of the time of `import apache_beam`.

Beam imports each of them where its client library is installed, and does without those that are
not. `apache-beam[gcp]` installs Google's; this pipeline uses none of Beam's connectors. Of the
clouds' file systems, each is loaded when a path of it is met for the first time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import ModuleType
from typing import Any, Final

_FILE_SYSTEMS: Final = {
    "gs": "apache_beam.io.gcp.gcsfilesystem",
    "s3": "apache_beam.io.aws.s3filesystem",
    "azfs": "apache_beam.io.azure.blobstoragefilesystem",
}
_OPTIONAL: Final = (
    *_FILE_SYSTEMS.values(),
    "apache_beam.io.gcp.bigquery",
    "apitools",
    "google.cloud.dataflow",
    "google.cloud.pubsub",
)
"""What Beam tries to import, and does without where there is no such module."""

_MONGODB: Final = "apache_beam.io.mongodbio"
"""Is imported in any case, and warns where its client library is missing."""

_PUBSUB: Final = "apache_beam.io.gcp.pubsub"


@contextmanager
def without_connectors() -> Iterator[None]:
    """For `import` statements: if they are the first to load Beam, it loads without them.

    No other thread may import modules meanwhile.
    """
    if "apache_beam" in sys.modules:
        yield
        return
    # None: https://docs.python.org/3/reference/import.html#the-module-cache
    stand_ins: dict[str, Any] = {**dict.fromkeys(_OPTIONAL), _MONGODB: ModuleType(_MONGODB)}
    absent = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(absent)
    try:
        yield
        if "apache_beam" in sys.modules:
            # DirectRunner asks of each step whether it is one of these.
            import_module(_PUBSUB)
            _load_file_systems_on_demand()
    finally:
        for name in absent:
            sys.modules.pop(name, None)


def _load_file_systems_on_demand() -> None:
    from apache_beam.io.filesystems import FileSystems

    find = FileSystems.get_filesystem

    def get_filesystem(path: str) -> Any:
        module = _FILE_SYSTEMS.get(FileSystems.get_scheme(path))
        if module is not None:
            # Where its library is missing, Beam says so itself.
            with suppress(ModuleNotFoundError):
                import_module(module)
            with suppress(ModuleNotFoundError):
                _let_retries_know_errors()
        return find(path)

    FileSystems.get_filesystem = staticmethod(get_filesystem)


def _let_retries_know_errors() -> None:
    """What Beam's retries had done without, as apitools was left out."""
    from apache_beam.utils import retry
    from apitools.base.py.exceptions import HttpError
    from google.api_core.exceptions import GoogleAPICallError

    retry.HttpError, retry.GoogleAPICallError = HttpError, GoogleAPICallError
