"""The cold start: a shard without state loads the ids of the tables before its first verdict."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.deduplicate.fingerprint_index import NO_BUCKET, FingerprintIndex
from transforms.deduplicate.id_files import IdFiles
from transforms.deduplicate.ids_format import IdsUnreadable, ranges_of
from transforms.deduplicate.remembered_ids import RememberedIds, per_bucket
from transforms.deduplicate.shard_state import ShardHead, encode_groups
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.live_ids import SomeShards
from transforms.destinations.contract.seed import Seed
from transforms.model.buckets import highest_expired_bucket
from transforms.model.fingerprints import Fingerprints, fingerprints_in, shard_range, shards_of

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoredIds:
    """Files that hold what a run begins with, for workers in other processes.

    run_id: of the run that the files are as of. live_ids: of its record.
    """

    files: IdFiles
    run_id: str
    live_ids: int


@dataclass(frozen=True)
class ColdStart:
    """Which ids to load, as the plan decided.

    job: names the run, so that a process loads once per run. watermark_us: the lowest start
    watermark of the run; ids that it has expired are not loaded. None: all ids are loaded. stored:
    where they lie too; None: in the tables alone. seed: ids that another job has paid; None: none.
    """

    destination: Destination
    job: str
    watermark_us: int | None
    extra_retention_us: int
    stored: StoredIds | None = None
    seed: Seed | None = None

    @property
    def expired_through(self) -> int | None:
        """The highest bucket whose ids are not loaded; None: all ids are."""
        if self.watermark_us is None:
            return None
        return highest_expired_bucket(self.watermark_us, self.extra_retention_us)


@dataclass(frozen=True)
class KnownIds:
    """Ids and the bucket of each: shapes (n, 10) and (n,)."""

    fingerprints: Fingerprints
    buckets: NDArray[np.int32]

    def of_shard(self, shard: int, shards: int, expired_through: int | None) -> KnownIds:
        """The ids in the hash range of `shard` whose bucket is above `expired_through`."""
        oldest = NO_BUCKET if expired_through is None else expired_through
        mine = (shards_of(self.fingerprints, shards) == shard) & (self.buckets > oldest)
        return KnownIds(self.fingerprints[mine], self.buckets[mine])


def fill_new_shard(
    head: ShardHead,
    shard: int,
    shards: int,
    start: ColdStart | None,
    add_blob: Callable[[int, bytes], None],
    known: KnownIds | None,
) -> FingerprintIndex:
    """Writes the ids of a shard without state into it, and returns the index over them.

    Changes `head`: what the start watermark has expired, and the number of live ids per bucket.
    add_blob: takes a slot of the ring and the encoded ids to add to it. known: at least the ids of
    the shard. start, known: None where there is nothing to load.
    """
    index = FingerprintIndex()
    if start is None or known is None:
        return index
    head.expired_through = start.expired_through
    mine = known.of_shard(shard, shards, head.expired_through)
    for slot, blob in encode_groups(head, mine.fingerprints, mine.buckets).items():
        add_blob(slot, blob)
    head.change_live(per_bucket(mine.buckets))
    index.add(mine.fingerprints, mine.buckets)
    return index


_LOADED: Final[dict[str, RememberedIds]] = {}
_LOCK: Final = threading.Lock()


def load_known_ids(start: ColdStart) -> RememberedIds:
    """All ids that the run begins with: those that this process remembers, or else of the tables.

    Asked for once per process with one query: each shard would scan the tables for itself.
    """
    with _LOCK:
        if start.job not in _LOADED:
            _LOADED.clear()
            with start.destination as destination:
                known = _ask(destination, start)
            _LOADED[start.job] = RememberedIds(
                known.fingerprints, known.buckets, start.expired_through
            )
        return _LOADED[start.job]


def ids_of_shard(start: ColdStart, shard: int, shards: int) -> FingerprintIndex:
    """The index that a shard of a bounded run begins with.

    A process without the ids of the run reads those of the shard from the stored files; where there
    are none, or they cannot be used, which is said, it loads all of them from the tables, once.
    """
    with _LOCK:
        has_them = start.job in _LOADED
    if start.stored is not None and not has_them:
        stored, bound = start.stored, start.expired_through
        numbers = ranges_of(*shard_range(shard, shards))
        try:
            ids = stored.files.read_ranges(stored.run_id, stored.live_ids, bound, numbers)
        except IdsUnreadable as problem:
            _LOG.warning("a worker loads the ids from the tables: %s", problem)
        else:
            ids.forget_through(bound)
            return ids.of_shard(shard, shards)
    return load_known_ids(start).of_shard(shard, shards)


def begin_with(job: str, ids: RememberedIds) -> None:
    """The run of this name begins with `ids`, in this process."""
    with _LOCK:
        _LOADED.clear()
        _LOADED[job] = ids


def load_ids_of_shards(
    destination: Destination, start: ColdStart, numbers: Collection[int], shards: int
) -> KnownIds:
    """The ids of some of all `shards`, with one query; this module keeps none of them.

    destination: that of `start`, open in this process.
    """
    return _ask(destination, start, SomeShards(tuple(sorted(numbers)), shards))


def forget_known_ids() -> None:
    """Frees the memory once a run has ended in this process."""
    with _LOCK:
        _LOADED.clear()


def _ask(destination: Destination, start: ColdStart, only: SomeShards | None = None) -> KnownIds:
    table: pa.Table = destination.rows.live_ids(
        start.watermark_us, start.extra_retention_us, only, start.seed
    )
    return KnownIds(
        fingerprints_in(table.column("fingerprint").combine_chunks()),
        table.column("bucket").to_numpy().astype(np.int32),
    )
