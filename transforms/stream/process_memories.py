"""What this process remembers of the shards of each streaming job that it works for."""

from __future__ import annotations

import threading
from typing import Any, Final

from transforms.deduplicate.process_memory import ProcessMemory

_MEMORIES: Final[dict[tuple[str, str], ProcessMemory[Any]]] = {}
_GUARD: Final = threading.Lock()


def memory_of(job_id: str, step: str) -> ProcessMemory[Any]:
    """The memory of one step of a job.

    All DoFn instances of the step share it: the next bundle of a shard may come to another one.
    """
    with _GUARD:
        return _MEMORIES.setdefault((job_id, step), ProcessMemory())
