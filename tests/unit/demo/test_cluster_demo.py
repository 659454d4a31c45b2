"""How the demos on Flink and on Spark wait for a command that runs beside them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.demo import cluster_demo
from pipeline.demo.cluster_demo import ClusterDemo
from pipeline.demo.flink_demo import FlinkDemo
from pipeline.demo.spark_demo import SparkDemo
from runners.flink.rest import FlinkUnreachable
from transforms.model.errors import GuaranteeError, TryAgainLater


class Command:
    """A process that has ended with this status; None: it runs."""

    def __init__(self, status: int | None) -> None:
        self._status = status

    def poll(self) -> int | None:
        return self._status


class Clock:
    """Moves by what is slept."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(cluster_demo, "time", found)
    return found


@pytest.fixture(params=[FlinkDemo, SparkDemo])
def demo(request: pytest.FixtureRequest) -> ClusterDemo:
    """Its command runs."""
    nothing: Any = None
    found: ClusterDemo = request.param("broker:1", nothing, nothing)
    vars(found)["_command"] = Command(None)
    return found


def after(looks: int) -> Callable[[], bool]:
    """Holds from that look on."""
    left = iter([False] * looks)
    return lambda: next(left, True)


def test_it_waits_until_it_holds(demo: ClusterDemo, clock: Clock) -> None:
    demo.wait("the third look", after(3))
    assert clock.now == pytest.approx(0.6)


def test_a_busy_machine_is_said(demo: ClusterDemo, clock: Clock) -> None:
    with pytest.raises(TryAgainLater) as raised:
        demo.wait("this never comes", lambda: False)
    assert raised.value.message == (
        "waited 240 s for this: this never comes. The machine may be too busy; start the demo"
        " again."
    )
    assert clock.now == pytest.approx(240, abs=0.3)


@pytest.mark.usefixtures("clock")
def test_a_command_that_has_ended_is_said(demo: ClusterDemo) -> None:
    vars(demo)["_command"] = Command(4)
    demo.wait("what holds already", after(0))
    with pytest.raises(GuaranteeError, match="ended with status 4"):
        demo.wait("this never comes", lambda: False)


def test_a_job_that_begins_again_is_waited_for(clock: Clock) -> None:
    nothing: Any = None
    looks = after(2)

    def holds() -> bool:
        if not looks():
            raise FlinkUnreachable("no job runs")
        return True

    FlinkDemo("broker:1", nothing, nothing).wait("the job goes on", holds)
    assert clock.now == pytest.approx(0.4)
