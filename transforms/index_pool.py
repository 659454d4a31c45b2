"""Where indexes wait between bundles. An index may be used only with the very state that it was built from.

`take` removes the index, so one that a failed bundle has changed is never met again. The token is a fresh random 128-bit number for every
change of the state: a counter would repeat after a rollback, and an index of the lost future would be taken for the present one.
"""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass, field
from typing import Final

from transforms.deduplicate.fingerprint_index import FingerprintIndex

TOKEN_BYTES: Final = 16


def fresh_token() -> bytes:
    return secrets.token_bytes(TOKEN_BYTES)


@dataclass
class IndexPool:
    """At most one index per (job, shard), with the token of the state that it stands for."""

    _waiting: dict[tuple[str, int], tuple[bytes, FingerprintIndex]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, job: str, shard: int, token: bytes) -> FingerprintIndex | None:
        """The index for exactly this state, which now belongs to the caller; None if there is none, and what waited there is dropped."""
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
