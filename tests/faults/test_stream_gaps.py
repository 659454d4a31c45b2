"""Gaps in streaming: every row shard passes them, in bundles of its own, and dies in between."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support.streaming.faults import Kill, Killed, UnreliableDestination
from tests.support.streaming.log import Sent
from tests.support.streaming.oracle import compare, gaps_of
from tests.support.streaming.runner import PATIENCE, Cluster, DictCells, read_to_the_end
from transforms.deduplicate.process_memory import ProcessMemory
from transforms.model.elements import EmptyOffsets, GapAnswer, PassedGaps
from transforms.model.errors import GuaranteeError
from transforms.stream.gaps import GapsShard

GAP = Sent(None, 0, gap=True)


class Gaps:
    """The shard of gaps with two row shards; each bundle is one of a process of its own."""

    def __init__(self, destination: Any) -> None:
        self.destination = destination
        self.job = Cluster(destination, [[]], shards=2).job
        self.cells = DictCells()

    def bundle(self, *answers: GapAnswer, destination: Any = None) -> None:
        cells = copy.deepcopy(self.cells)
        opened = destination or self.destination
        shard = GapsShard(opened, self.job, 2, cells, ProcessMemory(), PATIENCE)
        for answer in answers:
            shard.add(answer)
        shard.finish()
        self.cells = cells


def answer(
    shard: int, *gaps: tuple[int, int], partition: int = 0, present: tuple[int, ...] = ()
) -> GapAnswer:
    empty = [EmptyOffsets(first, last, "no_record") for first, last in gaps]
    return GapAnswer(shard, [PassedGaps("payments", partition, empty, list(present))])


def offsets(partition: int, *offsets: int) -> list[tuple[int, int]]:
    return [(partition, offset) for offset in offsets]


def test_a_gap_waits_until_every_shard_has_passed_it(destination: Any) -> None:
    gaps = Gaps(destination)
    gaps.bundle(answer(0, (3, 5), present=(4,)))
    assert gaps_of(destination) == []
    gaps.bundle(answer(1, (3, 5), present=(5,)))
    assert gaps_of(destination) == offsets(0, 3)


def test_a_gap_waits_for_an_earlier_one_of_its_partition_alone(destination: Any) -> None:
    gaps = Gaps(destination)
    gaps.bundle(answer(0, (3, 3), (5, 5)), answer(0, (7, 7), partition=1))
    gaps.bundle(answer(1, (7, 7), partition=1))
    assert gaps_of(destination) == offsets(1, 7)
    gaps.bundle(answer(1, (3, 3)))
    assert sorted(gaps_of(destination)) == [(0, 3), (1, 7)]
    gaps.bundle(answer(1, (5, 5)))
    assert sorted(gaps_of(destination)) == [(0, 3), (0, 5), (1, 7)]


def test_shards_may_pass_a_gap_in_different_pieces(destination: Any) -> None:
    """Two reads end and begin in it, and only one shard has both in one bundle."""
    gaps = Gaps(destination)
    gaps.bundle(answer(0, (3, 4), (5, 6)))
    gaps.bundle(answer(1, (3, 4)))
    gaps.bundle(answer(1, (5, 6)))
    assert gaps_of(destination) == offsets(0, 3, 4, 5, 6)


def test_the_gaps_of_a_bundle_are_one_append(destination: Any) -> None:
    gaps = Gaps(destination)
    watched = UnreliableDestination(destination)
    gaps.bundle(
        *(answer(shard, (3, 3), (5, 9)) for shard in (0, 1)),
        *(answer(shard, (4, 4), partition=1) for shard in (0, 1)),
        destination=watched,
    )
    assert watched.calls["send"] == 0, "calls count from 0"
    assert len(gaps_of(destination)) == 7


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    "step", ["create_stream", "swap_shards", "finalize_stream", "read_shards", "send"]
)
def test_a_pending_gap_is_written_once_whatever_dies(
    destination: Any, step: str, after: bool
) -> None:
    gaps = Gaps(destination)
    gaps.bundle(answer(0, (3, 5), present=(4,)))
    for at in range(2):
        dying = UnreliableDestination(destination, kill=Kill(step, at, after))
        try:
            gaps.bundle(answer(1, (3, 5)), destination=dying)
        except Killed:
            dying.network.deliver(9)
        else:
            break
    else:
        gaps.bundle(answer(1, (3, 5)))
    gaps.bundle(answer(0, (8, 8)))
    gaps.bundle(answer(1, (8, 8)))
    assert gaps_of(destination) == offsets(0, 3, 5, 8)


def test_a_gap_that_a_replay_passes_by_halves_is_not_written_again(destination: Any) -> None:
    """An attempt wrote it as one; the next one has passed half of it when it is restored."""
    gaps = Gaps(destination)
    nothing = copy.deepcopy(gaps.cells)
    gaps.bundle(answer(0, (3, 6)), answer(1, (3, 6)))
    gaps.cells = nothing
    gaps.bundle(answer(0, (3, 4)), answer(1, (3, 4)))
    gaps.bundle(answer(0, (5, 8)), answer(1, (5, 8)))
    assert gaps_of(destination) == offsets(0, 3, 4, 5, 6, 7, 8)


def test_shards_that_name_different_gaps_stop_the_job(destination: Any) -> None:
    gaps = Gaps(destination)
    gaps.bundle(answer(0, (3, 5), (7, 7)))
    for other in ([(7, 7)], [(3, 3), (5, 5)], [(3, 7)], [(2, 5)], [(3, 5), (6, 6)]):
        with pytest.raises(GuaranteeError, match="name different gaps of payments:0"):
            gaps.bundle(answer(1, *other))
    gaps.bundle(answer(1, (3, 5)))
    assert gaps_of(destination) == offsets(0, 3, 4, 5)


def test_a_gap_that_a_shard_has_passed_before_stops_the_job(destination: Any) -> None:
    gaps = Gaps(destination)
    gaps.bundle(answer(0, (3, 5)))
    with pytest.raises(GuaranteeError, match="shard 0 passes the gap payments:0:5 although 5 was"):
        gaps.bundle(answer(0, (5, 6)))
    gaps.bundle(answer(1, (3, 5)))
    with pytest.raises(GuaranteeError, match="shard 1 passes the gap payments:0:4 although 5 was"):
        gaps.bundle(answer(1, (4, 6)))


def test_markers_between_records_cut_no_batch(destination: Any) -> None:
    """Of a read with gaps each shard has one append per table, and the gaps have one."""
    records = [Sent(str(at), 0) if at % 3 else GAP for at in range(30)]
    cluster = Cluster(destination, [records], shards=2)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 30)])
    assert attempt.destination.calls["send"] + 1 == 3
    read_to_the_end(attempt)
    compare(destination, cluster.log)
