"""What a process remembers of its shards between bundles, valid only with the very state that it wrote last.

`take` removes it, so a bundle that fails leaves nothing behind and its next attempt recovers: the token is forgotten before the first append.
Tokens are random (index_pool.py): a counter would repeat after a rollback.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Memory = TypeVar("Memory")


@dataclass
class ProcessMemory(Generic[Memory]):
    """One per job and process. At most one memory a shard, with the token of the state that it goes with."""

    _kept: dict[int, tuple[bytes, Memory]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, shard: int, token: bytes | None) -> Memory | None:
        """The memory for exactly this state, which is forgotten here; whatever else was kept of the shard is dropped."""
        with self._lock:
            kept = self._kept.pop(shard, None)
        return kept[1] if kept and kept[0] == token else None

    def keep(self, shard: int, token: bytes, memory: Memory) -> None:
        with self._lock:
            self._kept[shard] = (token, memory)
