"""What a recovery does at the same time, and what it still does one after the other."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.support.streaming.faults import Kill, Killed, UnreliableDestination
from tests.support.streaming.log import Sent
from tests.support.streaming.oracle import compare, compare_totals, rows_of
from tests.support.streaming.runner import Attempt, Cluster, read_to_the_end
from transforms.destinations.duckdb import in_flight
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.tables import DUPLICATES, PAYMENTS
from transforms.stream.in_parallel import MOST_AT_ONCE, in_parallel

SHARDS = 4
LOG = [[Sent(f"id {at}", 0) for at in range(30)], [Sent(f"id {at}", 1) for at in range(15)]]
"""Every shard has ids in each half of it."""
SECONDS = 20
"""How long a call waits for the one beside it, where there is none."""


class InTwos(UnreliableDestination):
    """A stream is created, or finalized, only when another one is at the same time.

    steps: the calls in the order in which they ended. Totals have one stream, so nothing waits
    after the first `creates` and `finalizes`.
    """

    def __init__(self, real: Any, creates: int, finalizes: int) -> None:
        super().__init__(real)
        self.steps: list[str] = []
        self._left = {"create": creates, "finalize": finalizes}
        self._meet = threading.Barrier(2, timeout=SECONDS)
        self._order = threading.Lock()

    def _meeting(self, step: str) -> None:
        with self._order:
            waits = self._left[step] > 0
            self._left[step] -= 1
        if waits:
            self._meet.wait()

    def create_stream(self, table: str, kind: str) -> str:
        self._meeting("create")
        stream = super().create_stream(table, kind)
        self.steps.append("create")
        return stream

    def finalize_stream(self, stream: str) -> int:
        self._meeting("finalize")
        rows = super().finalize_stream(stream)
        self.steps.append("finalize")
        return rows

    def swap_shards(self, job: Any, seen: Any, rows: Any) -> bool:
        self.steps.append("swap")
        return super().swap_shards(job, seen, rows)

    def rows_above(self, shards: int, floors: Any, oldest: int | None) -> Any:
        self.steps.append("look")
        return super().rows_above(shards, floors, oldest)


def test_streams_are_created_and_finalized_at_once_between_the_steps_that_need_them(
    destination: Any,
) -> None:
    cluster = Cluster(destination, LOG, shards=SHARDS)
    cluster.start(cluster.nothing()).bundle([(0, 15), (1, 7)])
    streams = 3 * SHARDS
    replay = Attempt(InTwos(destination, streams, streams), cluster.settings(), cluster.nothing())
    replay.bundle([(0, 30), (1, 15)])
    steps = replay.destination.steps[: 2 * streams + 3]  # type: ignore[attr-defined]
    assert steps == ["create"] * streams + ["swap"] + ["finalize"] * streams + ["look", "swap"]
    read_to_the_end(replay)
    compare(destination, LOG)
    compare_totals(destination, LOG)


def test_a_recovery_that_dies_at_one_of_its_calls_leaves_none_behind(destination: Any) -> None:
    cluster = Cluster(destination, LOG, shards=SHARDS)
    cluster.start(cluster.nothing()).bundle([(0, 15), (1, 7)])
    for step in ("create_stream", "finalize_stream"):
        for after in (False, True):
            with pytest.raises(Killed):
                cluster.start(cluster.nothing(), kill=Kill(step, 5, after)).bundle([(0, 16)])
            assert not [one for one in threading.enumerate() if one.name.startswith("recovery")]
    read_to_the_end(cluster.start(cluster.nothing()))
    compare(destination, LOG)
    compare_totals(destination, LOG)


def test_no_more_calls_than_allowed_are_under_way() -> None:
    under_way, most, guard = 0, 0, threading.Lock()
    full = threading.Barrier(MOST_AT_ONCE, timeout=SECONDS)

    def call(number: int) -> int:
        nonlocal under_way, most
        with guard:
            under_way += 1
            most = max(most, under_way)
        full.wait()
        with guard:
            under_way -= 1
        return number

    numbers = range(3 * MOST_AT_ONCE)
    assert in_parallel([lambda n=n: call(n) for n in numbers]) == list(numbers)  # type: ignore[misc]
    assert most == MOST_AT_ONCE


def test_the_error_of_the_first_call_that_failed_is_raised() -> None:
    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        in_parallel([lambda: None, lambda: fail(1), lambda: fail(2)])
    assert in_parallel([]) == []


def test_a_bundle_writes_its_payments_at_once_and_then_its_duplicates(
    destination: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not isinstance(destination, DuckDBDestination):
        pytest.skip("each stream of BigQuery has requests of its own")
    twice = [[Sent(f"id {at}", second) for second in (0, 1) for at in range(30)]]
    cluster = Cluster(destination, twice, shards=SHARDS)
    written: list[set[str]] = []
    write = in_flight.write

    def dies_before_duplicates(cursor: Any, appends: Any) -> Any:
        written.append({append.stream.partition("/")[0] for append in appends})
        if DUPLICATES in written[-1] and len(written) == 2:
            raise Killed("between the two")
        assert len(appends) == SHARDS
        return write(cursor, appends)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(in_flight, "write", dies_before_duplicates)
        Attempt(destination, cluster.settings(), cluster.nothing()).bundle([(0, 60)])
    assert written == [{PAYMENTS}, {DUPLICATES}]
    found = rows_of(destination)
    assert (len(found[PAYMENTS]), len(found[DUPLICATES])) == (30, 0)
    read_to_the_end(cluster.start(cluster.nothing()))
    compare(destination, cluster.log)
    compare_totals(destination, cluster.log)
