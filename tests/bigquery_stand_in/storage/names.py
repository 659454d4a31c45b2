"""Resource names of the Write API: projects/P/datasets/D/tables/T, and below it streams/S,
streams/_default or _default.
"""

from __future__ import annotations

import re
from typing import Final

import grpc

from tests.bigquery_stand_in.errors import StorageFailure

_TABLE: Final = re.compile(r"projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)")
_DEFAULT: Final = re.compile(r"(projects/[^/]+/datasets/[^/]+/tables/[^/]+)/(?:streams/)?_default")
_STREAM: Final = re.compile(r"(projects/[^/]+/datasets/[^/]+/tables/[^/]+)/streams/[^/]+")


def parse_table(path: str, project: str) -> tuple[str, str]:
    """(dataset, table). Raises StorageFailure for a malformed name or another project."""
    found = _TABLE.fullmatch(path)
    if found is None:
        raise StorageFailure(
            grpc.StatusCode.INVALID_ARGUMENT, f"malformed name of a table: {path!r}"
        )
    if found[1] != project:
        raise StorageFailure(
            grpc.StatusCode.PERMISSION_DENIED,
            f"Permission 'TABLES_UPDATE_DATA' denied on {path} (or it may not exist)",
        )
    return found[2], found[3]


def default_stream_table(name: str) -> str | None:
    """The table's path if `name` is a default stream."""
    found = _DEFAULT.fullmatch(name)
    return found[1] if found else None


def check_stream_name(name: str) -> None:
    if not _STREAM.fullmatch(name) and not _DEFAULT.fullmatch(name):
        raise StorageFailure(
            grpc.StatusCode.INVALID_ARGUMENT, f"malformed name of a write stream: {name!r}"
        )
