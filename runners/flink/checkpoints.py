"""Complete checkpoints and savepoints on a disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

METADATA: Final = "_metadata"
"""Flink writes this file last: a checkpoint or savepoint without it is not complete.

https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/state/checkpoints/
"""

CHECKPOINTS: Final = f"*/chk-*/{METADATA}"
SAVEPOINTS: Final = f"savepoint-*/{METADATA}"
"""Where they lie below the folder of all jobs."""


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of all jobs below `folder` (JOB/chk-N), newest first."""
    return [path for _, path in sorted(on_disk(folder, CHECKPOINTS), reverse=True)]


def local_folder(address: str) -> Path | None:
    """The folder of a path or of file:///...; None for another file system."""
    parts = urlsplit(address)
    if parts.scheme not in ("", "file"):
        return None
    return Path(unquote(parts.path) if parts.scheme else address)


def on_disk(folder: Path, pattern: str) -> Iterator[tuple[float, Path]]:
    """When each that matches was complete, seconds since 1970, and where it is."""
    for metadata in folder.glob(pattern):
        try:
            yield metadata.stat().st_mtime_ns / 1e9, metadata.parent
        except FileNotFoundError:  # Flink removes old ones meanwhile
            continue
