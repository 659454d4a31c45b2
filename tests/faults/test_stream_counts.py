"""Rows are counted cumulatively: what the ledger counts minus what a state has passed is present.

Every reading but this one stops a healthy job (docs/streaming.md, 1 (c)).
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.support.streaming.destination import look, tamper
from tests.support.streaming.log import Sent
from tests.support.streaming.oracle import compare, compare_totals
from tests.support.streaming.runner import Cluster, read_to_the_end
from transforms.destinations.contract.shard_ledger import (
    GAPS_SHARD,
    NOTHING,
    TOTALS_SHARD,
    Progress,
    ShardRow,
)
from transforms.destinations.contract.shard_ledger_rows import changes
from transforms.model.errors import GuaranteeError
from transforms.model.tables import DUPLICATES, PAYMENTS, ROW_TABLES
from transforms.stream.claimed_shard import ClaimedShard, taken_rows

GAP = Sent(None, 0, gap=True)
LOG = [
    [Sent("a", 0), Sent("b", 0), GAP, Sent("a", 1), Sent("c", 0), Sent(None, 0), Sent("d", 0)],
    [Sent("b", 1), Sent("e", 0), GAP, Sent("e", 1), Sent("f", 0)],
]


def ledger_bytes(destination: Any) -> int:
    return sum(len(str(column)) for row in look(destination, "FROM shard_ledger") for column in row)


def test_the_ledger_does_not_grow_with_recoveries(destination: Any) -> None:
    cluster = Cluster(destination, LOG)
    start = cluster.nothing()
    sizes = []
    for _ in range(6):
        attempt = cluster.start(start)
        attempt.bundle([(0, 3), (1, 3)])
        sizes.append(ledger_bytes(destination))
        start = attempt.checkpoint() if len(sizes) == 1 else start
        attempt.bundle([(0, 1), (1, 1)])
    # The first recoveries have no streams to close, and no present rows.
    assert sizes[-1] <= sizes[2] + 20
    read_to_the_end(cluster.start(start))
    compare(destination, LOG)
    compare_totals(destination, LOG)


def test_a_claim_after_many_recoveries_is_as_large_as_after_few() -> None:
    row = ShardRow(0, "j" * 32, 1, "i" * 32, "", 0, [], {}, NOTHING, NOTHING)
    streams = {table: f"projects/p/datasets/d/tables/{table}/streams/s" for table in ROW_TABLES}
    offsets = {"payments": dict.fromkeys(range(100), 10**9)}
    for recovery in range(5_000):
        row = row.claim("n" * 32, streams)
        begin = Progress(row.epoch, row.ledger_id, offsets, {}, {}, {PAYMENTS: recovery})
        row = row.close(begin.counted, latest=begin)
    claimed = changes([row], [row.claim("m" * 32, streams)])
    assert len(msgspec.json.encode(claimed)) < 5_000, "of the 10 MB that a request may have"


@pytest.mark.parametrize("forgotten", ["before", "after"])
def test_what_an_expired_stream_held_is_taken_from_the_tables_by_all_later_recoveries(
    destination: Any, forgotten: str
) -> None:
    """Counted as nothing, or for ever as a bound, it would end in more rows than expected."""
    cluster = Cluster(destination, LOG)
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 3), (1, 3)])
    older = first.checkpoint()
    first.bundle([(0, 2)])
    newer = first.checkpoint()
    first.bundle([(1, 1)])
    if forgotten == "after":
        # The next epoch is open beside the expired one.
        cluster.start(newer).bundle([(0, 1)])
    for row in destination.shards.read([*range(2), TOTALS_SHARD, GAPS_SHARD]):
        for epoch in row.open_epochs:
            for stream in epoch.streams.values():
                destination.forget_stream(stream)
    for start in (newer, older, cluster.nothing(), newer):
        attempt = cluster.start(start)
        attempt.bundle([(0, 1), (1, 2)])
    read_to_the_end(cluster.start(older))
    compare(destination, LOG)
    compare_totals(destination, LOG)


def test_an_adopt_over_expired_streams_leaves_older_checkpoints_restorable(
    destination: Any,
) -> None:
    cluster = Cluster(destination, LOG)
    first = cluster.start(cluster.nothing())
    first.bundle([(0, 3), (1, 3)])
    older = first.checkpoint()
    first.bundle([(0, 2)])
    for row in destination.shards.read([*range(2), TOTALS_SHARD, GAPS_SHARD]):
        for stream in row.open_epochs[-1].streams.values():
            destination.forget_stream(stream)
    cluster.begin_job()
    start, cold_start = cluster.adopt()
    cluster.start(start, cold_start=cold_start).bundle([(1, 1)])
    read_to_the_end(cluster.start(older))
    compare(destination, LOG)
    compare_totals(destination, LOG)


def test_a_ledger_that_is_older_than_the_checkpoint_is_refused(destination: Any) -> None:
    cluster = Cluster(destination, LOG, shards=1)
    attempt = cluster.start(cluster.nothing())
    attempt.bundle([(0, 1)])
    attempt = cluster.start(attempt.checkpoint())
    attempt.bundle([(0, 1)])
    tamper(destination, "UPDATE shard_ledger SET epoch = 1")
    with pytest.raises(GuaranteeError, match="epoch 1, does not know"):
        cluster.start(attempt.checkpoint()).bundle([(0, 1)])


def row_of(closed: int) -> ShardRow:
    row = ShardRow(0, "j", 1, "id", "", 2, [], {PAYMENTS: closed}, NOTHING, NOTHING)
    return row.claim("n3", {PAYMENTS: "s3"}).claim("n4", {PAYMENTS: "s4"})


STATE = Progress(2, "id", {}, {PAYMENTS: 5}, {PAYMENTS: 1}, {PAYMENTS: 10})


def test_rows_that_a_state_has_passed_and_no_stream_has_taken_are_lost() -> None:
    with pytest.raises(GuaranteeError, match="streams hold 13 rows, but 14 were acknowledged"):
        taken_rows(row_of(11), STATE, {PAYMENTS: [2]}, [PAYMENTS])


def test_the_present_rows_are_those_of_the_ledger_and_the_open_streams_that_the_state_lacks() -> (
    None
):
    row = row_of(16)
    claimed = ClaimedShard(row, STATE, taken_rows(row, STATE, {PAYMENTS: [2]}, [PAYMENTS]))
    assert claimed.missing({PAYMENTS: 3}) == [f"shard 0, {PAYMENTS}: 3 rows of 4"]
    assert (claimed.missing({PAYMENTS: 4}), claimed.is_exact) == ([], True)
    assert claimed.closed_rows({PAYMENTS: 4}) == {PAYMENTS: 18}
    begin = claimed.new_progress({PAYMENTS: 4}, {PAYMENTS: 4})
    assert begin.passed(PAYMENTS) == STATE.passed(PAYMENTS)


def test_the_rows_of_an_expired_stream_are_the_rest_of_what_the_tables_hold() -> None:
    row = row_of(16)
    taken = taken_rows(row, STATE, {PAYMENTS: [None]}, [PAYMENTS, DUPLICATES])
    claimed = ClaimedShard(row, STATE, taken)
    assert (claimed.missing({PAYMENTS: 1}), claimed.missing({PAYMENTS: 7})) == (
        [f"shard 0, {PAYMENTS}: 1 rows of 2"],
        [],
    )
    assert not claimed.is_exact
    assert claimed.closed_rows({PAYMENTS: 7, DUPLICATES: 0}) == {PAYMENTS: 14 + 7, DUPLICATES: 0}
