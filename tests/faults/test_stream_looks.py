"""How far back a recovery looks: each shard as far as it must, and for no other one's sake."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from tests.support.payments import MINUTE
from tests.support.streaming.faults import Part, UnreliableDestination
from tests.support.streaming.log import HORIZON, TOPIC, Sent
from tests.support.streaming.oracle import compare, compare_totals
from tests.support.streaming.runner import (
    PATIENCE,
    Attempt,
    Checkpoint,
    Cluster,
    read_to_the_end,
)
from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.model.fingerprints import fingerprints_of, shards_of
from transforms.stream.adopt import adopt

SHARDS = 2
IDS = [f"id {number}" for number in range(20)]
SHARD_OF = dict(zip(IDS, shards_of(fingerprints_of(pa.array(IDS)), SHARDS).tolist(), strict=True))
BY_SHARD = {shard: [key for key in IDS if SHARD_OF[key] == shard] for shard in range(SHARDS)}


class Noting(UnreliableDestination):
    """looks: the shards of each look, and the event time in microseconds that bounds it."""

    def __init__(self, real: Any) -> None:
        super().__init__(real)
        self.looks: list[tuple[list[int], int | None]] = []

    def rows_above(self, shards: int, floors: Any, oldest: int | None) -> Any:
        self.looks.append(([one.shard for one in floors], oldest))
        return super().rows_above(shards, floors, oldest)


class NotingAdopt:
    """counted: the offsets of each count; begins: of the search for the first missing offset."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.counted: list[dict[int, Any]] = []
        self.begins: list[dict[Any, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def rows(self) -> Any:
        return Part(self._real.rows, count_above=self.count_above, first_missing=self.first_missing)

    def count_above(self, shards: int, offsets: Any) -> Any:
        self.counted.append({one.shard: one.offsets for one in offsets})
        return self._real.rows.count_above(shards, offsets)

    def first_missing(self, begins: Any) -> Any:
        self.begins.append(dict(begins))
        return self._real.rows.first_missing(begins)


def restored(cluster: Cluster, start: Checkpoint) -> tuple[Attempt, Noting]:
    noting = Noting(cluster.real)
    return Attempt(noting, cluster.settings(), start), noting


def test_a_shard_without_state_and_base_has_a_look_of_its_own(destination: Any) -> None:
    old, new = BY_SHARD[0], BY_SHARD[1]
    time = HORIZON + 3 * MINUTE
    log = [[Sent(old[0], 0), *(Sent(key, time) for key in (old[1], new[0], old[2], new[1]))]]
    cluster = Cluster(destination, log, shards=SHARDS)
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 2)])
    kept = first.checkpoint()
    first.bundle([(0, 2)])
    # As where the bundle of this shard was cut off from that of the other one.
    del kept.cells[1]
    later, noting = restored(cluster, kept)
    later.bundle([(0, 3)])
    assert noting.looks == [([0], 3 * MINUTE), ([1], None)]
    read_to_the_end(later)
    compare(destination, log)
    compare_totals(destination, log)


def test_only_a_shard_that_misses_rows_looks_behind_its_bound(destination: Any) -> None:
    """A payment that an older process wrote behind the expiry: an idle partition followed the
    clock in the checkpoint, and not before it.
    """
    behind, other = BY_SHARD[0][0], BY_SHARD[1][0]
    log = [
        [Sent(behind, MINUTE), Sent(behind, 9 * MINUTE), Sent(other, 9 * MINUTE)],
        [Sent(BY_SHARD[0][1], 9 * MINUTE), Sent(BY_SHARD[1][1], 9 * MINUTE)],
    ]
    cluster = Cluster(destination, log, shards=SHARDS)
    first = cluster.start(cluster.nothing())
    first.bundle([(1, 2)])
    older = first.checkpoint()
    first.now.source.idle(0, 8 * MINUTE)
    first.now.source.idle(1, 8 * MINUTE)
    first.bundle([])
    newer = first.checkpoint()
    cluster.start(older).bundle([(0, 1)])
    later, noting = restored(cluster, newer)
    later.bundle([(0, 3)])
    bound = noting.looks[0][1]
    assert bound is not None and bound > MINUTE
    assert noting.looks == [([0, 1], bound), ([0], None)]
    read_to_the_end(later)
    compare_totals(destination, log)


def test_adopt_looks_above_what_every_shard_had_passed_at_its_last_recovery(
    destination: Any,
) -> None:
    log = [[Sent(letter, 0) for letter in "abcdef"], [Sent("a", 1)]]
    cluster = Cluster(destination, log, shards=1)
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 3), (1, 1)])
    cluster.start(first.checkpoint()).bundle([(0, 2)])
    cluster.begin_job()
    noting = NotingAdopt(destination)
    start, cold_start = cluster.adopt(noting)
    assert noting.begins == [{(TOPIC, 0): 3, (TOPIC, 1): 1}]
    assert noting.counted == [{0: {TOPIC: {0: 2, 1: 0}}}, {0: {TOPIC: {0: 4, 1: 0}}}]
    cluster.begin_job()
    again = NotingAdopt(destination)
    cluster.adopt(again)
    assert again.counted == [{0: {TOPIC: {0: 4, 1: 0}}}], "no stream has taken a row since"
    read_to_the_end(cluster.start(start, cold_start=cold_start))
    compare(destination, log)


def test_rows_of_a_partition_that_is_not_read_any_more_are_not_present_for_ever(
    destination: Any,
) -> None:
    log = [[Sent("a", 0), Sent("b", 0)], [Sent("a", 1), Sent("c", 0), Sent("d", 0)]]
    cluster = Cluster(destination, log, shards=1)
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 1), (1, 2)])
    cluster.start(first.checkpoint()).bundle([(0, 1), (1, 1)])
    job = cluster.begin_job()
    adopt(destination, job, 1, {(TOPIC, 0): 0}, HORIZON, PATIENCE)
    (row,) = destination.shards.read([0])
    assert row.base.offsets == {TOPIC: {0: 1, 1: 1}}
    present = destination.rows.rows_above(1, [ShardOffsets(0, row.base.offsets)], None)
    assert present.column("kafka_offset").to_pylist() == [2], "written since the last recovery"
