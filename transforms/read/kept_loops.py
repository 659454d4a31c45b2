"""The loops that a process keeps between polls, by job and partition."""

from __future__ import annotations

import threading
from typing import Final

from transforms.read.partition_loop import PartitionLoop

_LOOPS: Final[dict[tuple[str, str, int], PartitionLoop]] = {}
_GUARD: Final = threading.Lock()


def take_loop(job_id: str, topic: str, partition: int) -> PartitionLoop | None:
    """Removes and returns what this process has kept, so that no two threads share a consumer."""
    with _GUARD:
        return _LOOPS.pop((job_id, topic, partition), None)


def keep_loop(job_id: str, topic: str, partition: int, loop: PartitionLoop) -> None:
    """Keeps it for the next poll, which may come to another DoFn instance and thread."""
    with _GUARD:
        replaced = _LOOPS.get((job_id, topic, partition))
        _LOOPS[job_id, topic, partition] = loop
    if replaced is not None:
        replaced.close()
