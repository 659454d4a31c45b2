from pathlib import Path
from typing import Any

import pytest

from tests.support.payments import MINUTE
from tests.support.streaming.destination import DESTINATIONS
from tests.support.streaming.faults import Kill, Killed
from tests.support.streaming.log import Sent
from tests.support.streaming.oracle import compare, compare_totals
from tests.support.streaming.runner import Attempt, Cluster, read_to_the_end
from transforms.destinations import appends
from transforms.destinations.appends import MAX_APPEND_BYTES
from transforms.stream.errors import Superseded

GAP = Sent(None, 0, gap=True)
LOG = [
    [Sent("a", 0), Sent("b", MINUTE), Sent("c", 0), Sent(None, 7), Sent("a", MINUTE), GAP],
    [Sent("b", 2 * MINUTE), GAP, Sent("c", MINUTE), Sent("a", 9 * MINUTE), Sent("e", 1)],
]


def test_a_job_that_nothing_happens_to_says_what_the_oracle_says(destination: Any) -> None:
    cluster = Cluster(destination, LOG)
    attempt = cluster.start(cluster.nothing())
    read_to_the_end(attempt)
    compare(destination, LOG)
    compare_totals(destination, LOG)


def calls_of(attempt: Attempt) -> list[tuple[str, int]]:
    return [
        (step, at) for step, last in attempt.destination.calls.items() for at in range(last + 1)
    ]


@pytest.mark.parametrize("most_bytes", [MAX_APPEND_BYTES, 1], ids=["", "row by row"])
@pytest.mark.parametrize("kind", DESTINATIONS)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_job_killed_at_every_call_and_replayed_in_another_order_says_what_the_oracle_says(
    tmp_path: Path, after: bool, kind: str, most_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """most_bytes: of one append; 1 cuts those of a bundle into one per row."""
    monkeypatch.setattr(appends, "MAX_APPEND_BYTES", most_bytes)

    def run(path: Path, kill: Kill | None) -> list[tuple[str, int]]:
        path.mkdir()
        with DESTINATIONS[kind](path) as destination:
            cluster = Cluster(destination, LOG)
            first = cluster.start(cluster.nothing())
            first.bundle([(0, 2)])
            kept = first.checkpoint()
            second = cluster.start(kept, kill=kill)
            try:
                second.bundle([(0, 2), (1, 3)])
                second.bundle([(0, 1), (1, 2)])
            except Killed:
                pass
            third = cluster.start(kept)
            third.bundle([(1, 4)])
            third.bundle([(0, 3), (1, 1)])
            read_to_the_end(third)
            compare(destination, LOG)
            compare_totals(destination, LOG)
            cluster.network.deliver(100)
            compare(destination, LOG)
            return calls_of(second)

    calls = run(tmp_path / "whole", None)
    assert len(calls) > 15
    # On BigQuery's stand-in each call is killed once, every other one before and the rest after it,
    # and of the appends row by row every fourth: all would take minutes.
    step_width = 1 if kind == "duckdb" else 2 if most_bytes > 1 else 8
    sample = calls[after if step_width > 1 else 0 :: step_width]
    for number, (step, at) in enumerate(sample):
        run(tmp_path / str(number), Kill(step, at, after))


def test_a_zombie_that_goes_on_is_refused_and_adds_nothing(destination: Any) -> None:
    cluster = Cluster(destination, LOG)
    zombie = cluster.start(cluster.nothing())
    zombie.bundle([(0, 2), (1, 2)])
    kept = zombie.checkpoint()
    zombie.bundle([(0, 1)])
    alive = cluster.start(kept)
    alive.bundle([(1, 1), (0, 1)])
    with pytest.raises(Superseded):
        zombie.bundle([(0, 2), (1, 3)])
    read_to_the_end(alive)
    compare(destination, LOG)
    compare_totals(destination, LOG)
