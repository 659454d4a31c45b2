"""Streaming against BigQuery's stand-in with faults on the wire: what the doubles of the other
tests cannot show.

Each bundle has connections of its own, as on a runner: the streams that it appends to were created
by an object that is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bigquery_stand_in import BigQueryStandIn, ErrorStyle
from tests.support.streaming.destination import bigquery_destination
from tests.support.streaming.log import Sent
from tests.support.streaming.oracle import compare, compare_totals
from tests.support.streaming.runner import Attempt, Checkpoint, Cluster, read_to_the_end
from transforms.stream import append as stream_append
from transforms.stream.append import StreamGone
from transforms.stream.recover import Superseded

LOG = [
    [
        Sent("a", 0),
        Sent("b", 0),
        Sent("a", 1),
        Sent(None, 7),
        Sent("c", 2),
        Sent("b", 1),
        Sent("d", 3),
        Sent("c", 3),
    ],
    [Sent("c", 0), Sent("e", 0), Sent("a", 2), Sent("f", 1)],
]


@pytest.fixture
def destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Every row is an append of its own, so that several are in flight."""
    monkeypatch.setattr(stream_append, "APPEND_BYTES", 1)
    with bigquery_destination(tmp_path) as one:
        yield one


@pytest.fixture
def stand_in(destination: Any) -> BigQueryStandIn:
    one: BigQueryStandIn = destination.stand_in
    return one


@pytest.fixture
def cluster(destination: Any) -> Cluster:
    return Cluster(destination, LOG, shards=1)


class BundleByBundle(Attempt):
    """Opens the destination for each bundle."""

    def __init__(self, cluster: Cluster, start: Checkpoint) -> None:
        super().__init__(cluster.real, cluster.settings(), start)
        self._real = cluster.real

    def bundle(self, reads: Any) -> None:
        with self._real.apart() as self.destination:
            super().bundle(reads)


def whole(cluster: Cluster) -> None:
    compare(cluster.real, cluster.log)
    compare_totals(cluster.real, cluster.log)


Fault = Callable[[BigQueryStandIn, str, int], Any]
FAULTS: dict[str, Fault] = {
    "cut": lambda one, name, nth: one.faults.cut(name, nth=nth),
    "answer lost": lambda one, name, nth: one.faults.lose_answer(name, nth=nth),
}
POINTS = [
    ("CreateWriteStream", 2),
    *(("AppendRows", nth) for nth in (1, 3, 8)),
    ("AppendRows.connect", 2),
    ("FinalizeWriteStream", 2),
    # The claim, and the closing of older epochs.
    *(("jobs.insert", nth) for nth in (2, 4)),
    ("jobs.getQueryResults", 2),
]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rpc,nth", POINTS)
def test_a_connection_that_breaks_anywhere_loses_and_doubles_nothing(
    cluster: Cluster, stand_in: BigQueryStandIn, rpc: str, nth: int, fault: str
) -> None:
    first = BundleByBundle(cluster, cluster.nothing())
    first.bundle([(0, 1)])
    kept = first.checkpoint()
    first.bundle([(1, 1)])
    rule = FAULTS[fault](stand_in, rpc, nth)
    restored = BundleByBundle(cluster, kept)
    restored.bundle([(1, 1), (0, 1)] * 3)
    read_to_the_end(restored, at_once=4)
    assert rule.hits == 1
    whole(cluster)


@pytest.mark.parametrize("abort", [False, True], ids=["in-band", "abort"])
def test_an_append_at_a_known_offset_of_a_stream_that_a_closed_object_made_is_proven_by_one_query(
    cluster: Cluster, stand_in: BigQueryStandIn, abort: bool
) -> None:
    """The answer is lost while more appends are in flight behind it: those were not written, and
    need no proof.
    """
    stand_in.faults.error_style = ErrorStyle(abort=abort)
    attempt = BundleByBundle(cluster, cluster.nothing())
    attempt.bundle([(1, 1)])
    proofs = stand_in.faults.hook(
        "jobs.run",
        lambda _call: None,
        times=99,
        when=lambda call: "FROM UNNEST(@wanted)" in call.request,
    )
    lost = stand_in.faults.lose_answer("AppendRows")
    attempt.bundle([(1, 1), (0, 1), (0, 1)])
    assert (lost.hits, proofs.hits) == (1, 1)
    read_to_the_end(attempt)
    whole(cluster)


@pytest.mark.parametrize("arrives", [False, True], ids=["before it arrives", "when it is written"])
def test_a_shard_that_is_taken_over_while_an_append_is_on_the_wire_counts_it_or_has_it_refused(
    cluster: Cluster, stand_in: BigQueryStandIn, arrives: bool
) -> None:
    """Another process recovers the shard within the append, before its effect or before its answer."""
    slow = BundleByBundle(cluster, cluster.nothing())
    slow.bundle([(0, 1)])
    quick = BundleByBundle(cluster, slow.checkpoint())
    rule = stand_in.faults.hook(
        "AppendRows", lambda _call: quick.bundle([(0, 3)]), nth=2, after=arrives
    )
    with pytest.raises(Superseded):
        slow.bundle([(1, 4), (0, 3)])
    assert rule.hits == 1
    read_to_the_end(quick)
    whole(cluster)


def test_streams_that_have_expired_stop_neither_a_recovery_nor_a_living_process(
    cluster: Cluster, stand_in: BigQueryStandIn
) -> None:
    attempt = BundleByBundle(cluster, cluster.nothing())
    attempt.bundle([(0, 2)])
    kept = attempt.checkpoint()
    forget_streams(cluster, stand_in)
    with pytest.raises(StreamGone):
        attempt.bundle([(0, 2)])
    attempt.bundle([(0, 2)])
    forget_streams(cluster, stand_in)
    read_to_the_end(BundleByBundle(cluster, kept))
    whole(cluster)


def forget_streams(cluster: Cluster, stand_in: BigQueryStandIn) -> None:
    for row in cluster.real.shards.read([0]):
        for epoch in row.epochs:
            for stream in epoch.streams.values():
                stand_in.forget_stream(stream)
