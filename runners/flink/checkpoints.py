"""Checkpoints and savepoints on a disk: which of them a job can be restored from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

METADATA: Final = "_metadata"
"""Flink writes this file last: a checkpoint or savepoint without it is not complete.

https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/state/checkpoints/
"""

_CHECKPOINTS: Final = f"*/chk-*/{METADATA}"
_SAVEPOINTS: Final = f"savepoint-*/{METADATA}"


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of all jobs below `folder` (JOB/chk-N), newest first."""
    return _newest_first(folder.glob(_CHECKPOINTS))


def complete_snapshots(folders: Iterable[Path]) -> list[Path]:
    """The complete checkpoints and savepoints (savepoint-X) of all jobs below, newest first."""
    patterns = (_CHECKPOINTS, _SAVEPOINTS)
    return _newest_first(
        found for folder in folders for pattern in patterns for found in folder.glob(pattern)
    )


def _newest_first(metadata_files: Iterable[Path]) -> list[Path]:
    found: list[tuple[int, Path]] = []
    for metadata in metadata_files:
        try:
            found.append((metadata.stat().st_mtime_ns, metadata.parent))
        except FileNotFoundError:  # Flink removes old ones meanwhile
            continue
    return [path for _, path in sorted(found, reverse=True)]
