"""What the benchmarks compute from what they have measured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import cpu_clocks
from benchmarks.spark_stream import drain_of
from benchmarks.steady_load import latency_in_words, since
from pipeline.streaming.figures import JobFigures


class Steps:
    """Each method takes as many CPU seconds as it says, beside what it calls."""

    def __init__(self, take: Any) -> None:
        self._take = take

    def outer(self) -> int:
        self._take(1)
        self.inner()
        self._take(2)
        return sum(self.items())

    def inner(self) -> None:
        self._take(10)

    def items(self) -> Iterator[int]:
        for number in (1, 2):
            self._take(100)
            yield number


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    now = [0.0]
    monkeypatch.setattr(cpu_clocks.time, "thread_time", lambda: now[0])
    monkeypatch.setattr(cpu_clocks.time, "process_time", lambda: now[0])
    monkeypatch.setattr(cpu_clocks, "SECONDS", cpu_clocks.Counter())
    for method in ("outer", "inner", "items"):
        monkeypatch.setattr(Steps, method, getattr(Steps, method))
        cpu_clocks.measure(Steps, method, method)

    def take(seconds: float) -> None:
        now[0] += seconds

    return Steps(take)


def test_what_a_step_takes_inside_another_one_counts_for_that_step_alone(steps: Steps) -> None:
    assert steps.outer() == 3
    assert cpu_clocks.SECONDS == {"outer": 3, "inner": 10, "items": 200}


def test_what_a_consumer_does_between_two_items_is_not_the_generator(steps: Steps) -> None:
    for _ in steps.items():
        steps.inner()
    assert cpu_clocks.SECONDS == {"inner": 20, "items": 200}


def test_each_thread_has_clocks_of_its_own(steps: Steps) -> None:
    for step in (steps.inner, steps.outer):
        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
    assert cpu_clocks.SECONDS == {"outer": 3, "inner": 20, "items": 200}


def test_start_up_ends_once(steps: Steps) -> None:
    cpu_clocks.start_up_ends_with(Steps, "outer")
    steps.inner()
    steps.outer()
    steps.outer()
    assert cpu_clocks.SECONDS["start-up"] == 10


def figures(**counted: int) -> JobFigures:
    return JobFigures({f"latency_ms_{name}": number for name, number in counted.items()}, 0)


def test_the_latency_after_the_warm_up_is_that_of_the_payments_since() -> None:
    warm = figures(up_to_2000=90)
    whole = figures(up_to_2000=90, up_to_400=60, up_to_900=40)
    assert latency_in_words(whole, 0.99) == "1,500 to 2,000 ms"
    found = since(warm, whole)
    assert [latency_in_words(found, share) for share in (0.5, 0.99)] == [
        "300 to 400 ms",
        "800 to 900 ms",
    ]
    assert latency_in_words(figures(up_to_50=1), 0.5) == "0 to 50 ms"
    assert latency_in_words(figures(up_to_more=1), 0.5) == "above 30,000 ms"


def batch(timestamp: str, milliseconds: int, rows: int, accepted: int) -> dict[str, Any]:
    return {
        "timestamp": timestamp,
        "durationMs": {"triggerExecution": milliseconds},
        "numInputRows": rows,
        "stateOperators": [{"numRowsUpdated": accepted}],
    }


def test_the_rate_of_spark_is_that_behind_its_first_batch() -> None:
    batches = [
        batch("2026-11-28T00:00:00.000Z", 9_000, 500, 490),
        batch("2026-11-28T00:00:09.000Z", 2_000, 500, 480),
        batch("2026-11-28T00:00:11.000Z", 2_000, 500, 470),
        batch("2026-11-28T00:00:13.000Z", 1_000, 0, 0),
    ]
    found = drain_of(batches)
    assert (found.rate, found.batches, found.accepted) == (250, 3, 1_440)
    with pytest.raises(RuntimeError, match=r"1 micro-batch.*more messages"):
        drain_of(batches[:1])
