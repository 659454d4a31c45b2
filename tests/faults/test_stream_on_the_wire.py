"""Streaming against BigQuery's stand-in with faults on the wire: what the doubles of the other
tests cannot show.

Each bundle has connections of its own, as on a runner: the streams that it appends to were created
by an object that is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.bigquery_stand_in import BigQueryStandIn, ErrorStyle
from tests.support.streaming.destination import bigquery_destination
from tests.support.streaming.log import Sent, Source
from tests.support.streaming.oracle import compare, compare_totals
from tests.support.streaming.runner import (
    Attempt,
    Checkpoint,
    Cluster,
    DictCells,
    read_to_the_end,
)
from transforms.deduplicate.process_memory import ProcessMemory
from transforms.destinations import appends
from transforms.destinations.bigquery import streams
from transforms.model.elements import DecodedBlock
from transforms.model.fingerprints import split_for_stream
from transforms.stream.bundle import StreamBundle
from transforms.stream.errors import StreamGone, Superseded

LARGE = 8 << 20
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
    monkeypatch.setattr(appends, "APPEND_BYTES", 1)
    monkeypatch.setattr(appends, "MAX_APPEND_BYTES", 1)
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
@pytest.mark.parametrize(
    "most_bytes,nth",
    [(appends.MAX_APPEND_BYTES, 1), (1, 1), (1, 2), (1, 3)],
    ids=["an append a table", "first piece", "second piece", "third piece"],
)
def test_a_shard_that_is_taken_over_while_an_append_is_on_the_wire_counts_it_or_has_it_refused(
    cluster: Cluster,
    stand_in: BigQueryStandIn,
    monkeypatch: pytest.MonkeyPatch,
    most_bytes: int,
    nth: int,
    arrives: bool,
) -> None:
    """Another process recovers the shard within the append, before its effect or its answer.

    most_bytes: of one append; 1 cuts the payments of a batch into one piece each.
    """
    monkeypatch.setattr(appends, "MAX_APPEND_BYTES", most_bytes)
    slow = BundleByBundle(cluster, cluster.nothing())
    slow.bundle([(0, 1)])
    quick = BundleByBundle(cluster, slow.checkpoint())
    rule = stand_in.faults.hook(
        "AppendRows", lambda _call: quick.bundle([(0, 3)]), nth=nth, after=arrives
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


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_connection_that_breaks_at_any_piece_of_an_append_loses_and_doubles_nothing(
    cluster: Cluster,
    stand_in: BigQueryStandIn,
    monkeypatch: pytest.MonkeyPatch,
    nth: int,
    fault: str,
) -> None:
    """Four payments of one batch, a piece each; the bundle goes on, and one after it."""
    monkeypatch.setattr(appends, "MAX_APPEND_BYTES", 1)
    attempt = BundleByBundle(cluster, cluster.nothing())
    attempt.bundle([])
    rule = FAULTS[fault](stand_in, "AppendRows", nth)
    attempt.bundle([(1, 4), (0, 3)])
    assert rule.hits == 1
    read_to_the_end(attempt)
    whole(cluster)


def test_records_that_are_large_together_go_out_as_appends_that_fit_a_request(
    cluster: Cluster, stand_in: BigQueryStandIn
) -> None:
    """Three records of 8 MiB in one batch of one shard: a request takes less than 20 MB."""
    sizes: list[int] = []
    stand_in.faults.hook(
        "AppendRows",
        lambda call: sizes.append(len(call.request.arrow_rows.rows.serialized_record_batch)),
        times=99,
    )
    ((block, covered),) = Source([[Sent("a", 0), Sent("b", 0), Sent("c", 0)]]).read(0, 3)
    with cluster.real.apart() as one:
        bundle = StreamBundle(one, cluster.settings(), ProcessMemory())
        bundle.open({0: DictCells()})
        ((shard, batch),) = split_for_stream(enlarged(block), covered, 1)
        bundle.process(shard, batch)
        bundle.finish()
    ((rows, content),) = stand_in.sql(
        "SELECT COUNT(*), SUM(LENGTH(unknown_fields)) FROM payment_transactions"
    )
    assert (rows, content) == (3, 3 * LARGE)
    assert len(sizes) == 3 and max(sizes) < LARGE + 10_000


def test_more_shards_than_a_channel_carries_keep_their_connections(
    cluster: Cluster, stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three streams of the shard and the one of totals, two connections a channel."""
    monkeypatch.setattr(streams, "MAX_CONNECTIONS", 2)
    connected = stand_in.faults.hook("AppendRows.connect", lambda _call: None, times=99)
    with cluster.real.apart() as one:
        attempt = Attempt(one, cluster.settings(), cluster.nothing())
        read_to_the_end(attempt, at_once=2)
    whole(cluster)
    assert connected.hits == 4


def enlarged(block: Any) -> DecodedBlock:
    """The block with 8 MiB of unknown fields in every payment."""
    large = pa.array(["x" * LARGE] * block.payments.num_rows, pa.string())
    at = block.payments.schema.get_field_index("unknown_fields")
    return DecodedBlock(
        block.payments.set_column(at, block.payments.schema.field(at), large),
        block.payload_index,
        block.rejected,
    )


def forget_streams(cluster: Cluster, stand_in: BigQueryStandIn) -> None:
    for row in cluster.real.shards.read([0]):
        for epoch in row.open_epochs:
            for stream in epoch.streams.values():
                stand_in.forget_stream(stream)
