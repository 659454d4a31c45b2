"""Checkpoints and savepoints on a disk: which of them a job can be restored from."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# Flink writes it last: a checkpoint without it was not complete.
# https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/state/checkpoints/
_METADATA: Final = "_metadata"


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints of all jobs below `folder` (JOB/chk-N), newest first."""
    found: list[tuple[int, Path]] = []
    for metadata in folder.glob(f"*/chk-*/{_METADATA}"):
        try:
            found.append((metadata.stat().st_mtime_ns, metadata.parent))
        except FileNotFoundError:  # Flink removes old ones meanwhile
            continue
    return [path for _, path in sorted(found, reverse=True)]
