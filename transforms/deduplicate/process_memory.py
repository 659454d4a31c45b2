"""What a process remembers of its shards between bundles, valid only with the very state that it
wrote last.

`take` removes it, so a bundle that fails leaves nothing behind and its next attempt recovers: the
token is forgotten before the first append. Tokens are random (index_pool.py): a counter would
repeat after a rollback.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from transforms.deduplicate.fingerprint_index import FingerprintIndex

Memory = TypeVar("Memory")


@dataclass
class ProcessMemory(Generic[Memory]):
    """One per job and process. At most one memory a shard, with the token of the state that it goes
    with.
    """

    _kept: dict[int, tuple[bytes, Memory]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, shard: int, token: bytes | None) -> Memory | None:
        """The memory for exactly this state, which is forgotten here; whatever else was kept of the
        shard is dropped.
        """
        with self._lock:
            kept = self._kept.pop(shard, None)
        return kept[1] if kept and kept[0] == token else None

    def keep(self, shard: int, token: bytes, memory: Memory) -> None:
        with self._lock:
            self._kept[shard] = (token, memory)


TOKEN_BYTES: Final = 16


def fresh_token() -> bytes:
    return secrets.token_bytes(TOKEN_BYTES)


@dataclass
class IndexPool:
    """At most one index per (job, shard), with the token of the state that it stands for."""

    _waiting: dict[tuple[str, int], tuple[bytes, FingerprintIndex]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, job: str, shard: int, token: bytes) -> FingerprintIndex | None:
        """The index for exactly this state, which now belongs to the caller; None if there is none,
        and what waited there is dropped.
        """
        with self._lock:
            waiting = self._waiting.pop((job, shard), None)
        return waiting[1] if waiting and waiting[0] == token else None

    def put_back(self, job: str, shard: int, token: bytes, index: FingerprintIndex) -> None:
        with self._lock:
            self._waiting[(job, shard)] = (token, index)

    def forget_job(self, job: str) -> None:
        """Frees the memory of a job that has ended in this process."""
        with self._lock:
            for key in [key for key in self._waiting if key[0] == job]:
                del self._waiting[key]


POOL: Final = IndexPool()
"""One per worker process: the next bundle of a shard may be another DoFn instance's."""
