"""Memory of a shard that a worker process keeps between bundles, to save decoding the state.

Memory is valid only together with the state that was written with it. Both carry the same token, a
new random one for each write: a runner may roll the state back to a checkpoint, and a counter would
then give another state the same number.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from transforms.deduplicate.fingerprint_index import FingerprintIndex

Memory = TypeVar("Memory")

TOKEN_BYTES: Final = 16


def fresh_token() -> bytes:
    """A new random token, written into the state and kept beside the memory."""
    return secrets.token_bytes(TOKEN_BYTES)


@dataclass
class ProcessMemory(Generic[Memory]):
    """The memory of all shards of one job in one process, at most one entry a shard.

    The next bundle of a shard may belong to another DoFn instance, hence to another thread.
    """

    _kept: dict[int, tuple[bytes, Memory]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, shard: int, token: bytes | None) -> Memory | None:
        """The memory that goes with the state of this token; None if there is none.

        Removes the shard's entry in either case, before the bundle changes anything: a bundle that
        fails leaves nothing behind, and its next attempt starts from the state.
        """
        with self._lock:
            kept = self._kept.pop(shard, None)
        return kept[1] if kept and kept[0] == token else None

    def newest(self, shard: int) -> Memory | None:
        """What was kept last, whatever state it goes with; None where a bundle has taken it.

        For the end of a process, behind which no bundle comes.
        """
        with self._lock:
            kept = self._kept.get(shard)
        return kept[1] if kept else None

    def keep(self, shard: int, token: bytes, memory: Memory) -> None:
        """Keeps the memory for the next bundle of the shard.

        token: that of the state that the memory goes with.
        """
        with self._lock:
            self._kept[shard] = (token, memory)


_MEMORIES: Final[dict[tuple[str, str], ProcessMemory[Any]]] = {}
_GUARD: Final = threading.Lock()
_INDEXES: Final = "indexes"


def memory_of(job: str, step: str) -> ProcessMemory[Any]:
    """The memory that this process keeps for one step of a job.

    All DoFn instances of the step share it: the next bundle of a shard may come to another one.
    """
    with _GUARD:
        return _MEMORIES.setdefault((job, step), ProcessMemory())


def indexes_of(job: str) -> ProcessMemory[FingerprintIndex]:
    """The indexes that this process keeps for the job."""
    return memory_of(job, _INDEXES)


def forget_indexes(job: str) -> None:
    """Frees the indexes of a job that has ended in this process."""
    with _GUARD:
        _MEMORIES.pop((job, _INDEXES), None)
