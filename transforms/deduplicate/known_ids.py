"""Cold start: the ids that a shard without state must know before its first verdict."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.contract.destination import Destination
from transforms.model.fingerprints import FINGERPRINT_BYTES, Fingerprints, shards_of


@dataclass(frozen=True)
class ColdStart:
    """What to load, decided by the plan. job: names this run, so that a process loads once and
    another run loads anew.

    watermark_us: the lowest start watermark of the run; ids that it has expired are not loaded.
    None: everything is.
    """

    destination: Destination
    job: str
    watermark_us: int | None
    extra_retention_us: int


@dataclass(frozen=True)
class KnownIds:
    fingerprints: Fingerprints
    buckets: NDArray[np.int32]

    def of_shard(self, shard: int, shards: int) -> KnownIds:
        mine = shards_of(self.fingerprints, shards) == shard
        return KnownIds(self.fingerprints[mine], self.buckets[mine])

    def per_bucket(self) -> dict[int, int]:
        """Bucket -> number of ids."""
        buckets, counts = np.unique(self.buckets, return_counts=True)
        return dict(zip(buckets.tolist(), counts.tolist(), strict=True))


_LOADED: Final[dict[str, KnownIds]] = {}
_LOCK: Final = threading.Lock()


def load_known_ids(start: ColdStart) -> KnownIds:
    """All ids of the run, loaded once per process with one query: shards of a process would
    otherwise each scan the tables.
    """
    with _LOCK:
        if start.job not in _LOADED:
            _LOADED.clear()
            with start.destination as destination:
                _LOADED[start.job] = _from_table(
                    destination.rows.live_ids(start.watermark_us, start.extra_retention_us)
                )
        return _LOADED[start.job]


def forget_known_ids() -> None:
    """Frees the memory once a run has ended in this process."""
    with _LOCK:
        _LOADED.clear()


def _from_table(table: pa.Table) -> KnownIds:
    column = table.column("fingerprint").combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    data = (
        np.frombuffer(column.buffers()[1] or b"", dtype=np.uint8)
        if len(column)
        else np.empty(0, dtype=np.uint8)
    )
    start = column.offset * FINGERPRINT_BYTES
    fingerprints = data[start : start + len(column) * FINGERPRINT_BYTES].reshape(
        -1, FINGERPRINT_BYTES
    )
    return KnownIds(fingerprints, table.column("bucket").to_numpy().astype(np.int32))
