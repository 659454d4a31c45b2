"""A run on Spark ends, or says why; no job is left on the job server by it."""

from __future__ import annotations

import itertools
import logging
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.options.run_config import run_config
from runners.profile import RunAborted, RunnerAway
from runners.spark.failure import ONE_CONTEXT, StepFailed
from runners.spark.job import WORKERS_OF
from runners.spark.run import Patience, look_at_job_server, run_on_spark
from tests.support.fake_job_server import FakeJobServer, fake_job_server

PATIENCE = Patience(away=5, busy=5, answer=10, look=0.01)


class Time:
    """A clock that `sleep` moves; and each look at it a little, where `runs` is set."""

    def __init__(self, a_look: float = 0.0) -> None:
        self._now, self._a_look = 0.0, a_look
        self.slept = 0

    def clock(self) -> float:
        self._now += self._a_look
        return self._now

    def sleep(self, seconds: float) -> None:
        self.slept += 1
        self._now += 1


def options(server: FakeJobServer | str, *flags: str) -> PipelineOptions:
    address = server if isinstance(server, str) else server.address
    return run_config(
        [
            "--bootstrap_servers=localhost:1", "--topic=payments",
            "--destination=bigquery:project.d", "--runner=SparkRunner",
            f"--job_endpoint={address}", *flags,
        ]
    ).beam_options  # fmt: skip


def build(pipeline: beam.Pipeline) -> None:
    _ = pipeline | beam.Create([1], reshuffle=False) | beam.Map(str)


def run(
    server: FakeJobServer | str,
    time: Time | None = None,
    progress: Callable[[], object] = itertools.count().__next__,
    build: Callable[[beam.Pipeline], None] = build,
) -> None:
    time = time or Time()
    run_on_spark(build, options(server), progress, PATIENCE, time.clock, time.sleep)


def test_a_job_that_is_done_is_a_run_that_has_ended() -> None:
    with fake_job_server("", "") as server:
        given = options(server)
        for _ in range(2):
            run_on_spark(build, given, lambda: 0, PATIENCE, Time().clock, Time().sleep)
        assert (server.submitted, server.cancelled, server.asked_for_options) == (2, 0, 1)
    assert given.get_all_options()["runner"] == "SparkRunner"


def test_no_file_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with fake_job_server("") as server:
        run(server)
        assert server.submitted == 1
    assert not list(tmp_path.iterdir())


def test_a_failed_job_is_translated() -> None:
    with fake_job_server("x.ExecutorLostFailure: gone") as server:
        with pytest.raises(RunAborted, match="an executor was lost"):
            run(server)
        assert server.cancelled == 0


def test_the_error_of_a_step_is_no_lost_run() -> None:
    python = "from SDK harness: Traceback (most recent call last):\n  File x\nValueError: wrong"
    with fake_job_server(python) as server, pytest.raises(StepFailed, match="ValueError: wrong"):
        run(server)


def test_an_error_of_building_is_raised_as_it_is() -> None:
    def broken(pipeline: beam.Pipeline) -> None:
        raise ValueError("of the graph")

    with fake_job_server() as server:
        with pytest.raises(ValueError, match="of the graph"):
            run(server, build=broken)
        assert server.submitted == 0


def test_a_busy_job_server_is_waited_for_with_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    time = Time()
    with fake_job_server("", others=(1, 1, 1)) as server:
        run(server, time)
    assert time.slept == 3
    said = [record.message for record in caplog.records if record.name == "runners.spark.run"]
    assert said == [
        f"--job_endpoint={server.address}: the job server is busy with 1 other job(s); waiting for"
        " at most 5 s"
    ]


def test_a_job_server_that_stays_busy_is_said_and_gets_no_job() -> None:
    with fake_job_server(others=(1,) * 99) as server:
        with pytest.raises(RunnerAway, match=r"busy with another job.*job server of your own"):
            run(server)
        assert server.submitted == 0


@pytest.fixture
def port() -> Iterator[tuple[socket.socket, str]]:
    """A socket with a port of its own, on which nobody listens yet, and what Beam calls it."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved, f"localhost:{reserved.getsockname()[1]}"


def test_a_job_whose_client_has_ended_is_cancelled_and_holds_nobody_up(
    port: tuple[socket.socket, str], caplog: pytest.LogCaptureFixture
) -> None:
    others = {"others": (1,) * 99, "workers_of_others": (port[1], WORKERS_OF)}
    with fake_job_server("", **others) as server:
        run(server)
        assert (server.others_cancelled, server.submitted, server.cancelled) == (1, 1, 0)
    assert "1 job(s) of a client that has ended, cancelled now" in caplog.text


@pytest.mark.parametrize(
    "case", ["it listens", "not of this program", "in another network", "no LOOPBACK here"]
)
def test_a_job_whose_client_may_be_there_is_waited_for(
    case: str, port: tuple[socket.socket, str]
) -> None:
    params = {
        "not of this program": {},
        "in another network": {**WORKERS_OF, "network": "that of a container"},
    }.get(case, WORKERS_OF)
    if case == "it listens":
        port[0].listen()
    given = ["--environment_type=PROCESS", '--environment_config={"command": "w"}']
    with fake_job_server("", others=(1, 1, 1), workers_of_others=(port[1], params)) as server:
        flags = given if case == "no LOOPBACK here" else []
        run_on_spark(
            build, options(server, *flags), lambda: 0, PATIENCE, Time().clock, Time().sleep
        )
        assert (server.others_cancelled, server.submitted) == (0, 1)


def test_a_context_that_is_just_ending_is_waited_for() -> None:
    time = Time()
    with fake_job_server(f"{ONE_CONTEXT} should be running", "") as server:
        run(server, time)
        assert (server.submitted, time.slept) == (2, 1)


def test_a_context_that_does_not_end_is_a_busy_job_server() -> None:
    with fake_job_server(*[f"{ONE_CONTEXT} should be running"] * 9) as server:
        with pytest.raises(RunnerAway, match="busy with another job"):
            run(server)
        assert server.submitted > 5


def test_a_job_server_that_is_away_is_waited_for_with_a_line_and_then_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with fake_job_server() as server:
        address = server.address
    time = Time()
    with pytest.raises(RunnerAway, match=rf"--job_endpoint={address}: .*has not answered for 5 s"):
        run(address, time)
    assert time.slept > 4
    assert sum("does not answer (UNAVAILABLE)" in record.message for record in caplog.records) == 1


def test_a_job_server_that_goes_away_has_lost_the_run() -> None:
    with fake_job_server(None) as server:
        calls = itertools.count()

        def progress() -> int:
            if server.submitted:
                server.go_away()
            return next(calls)

        with pytest.raises(RunAborted, match=r"has ended, or the connection to it is lost"):
            run(server, progress=progress)


def test_a_run_without_progress_is_cancelled() -> None:
    with fake_job_server(None) as server:
        # Each look at the clock is 100 s later; the bound is 600 s.
        with pytest.raises(RunAborted, match=r"nothing has moved on Spark for 600 s"):
            run(server, Time(100), lambda: "the same")
        assert server.cancelled == 1


def test_an_interrupt_cancels_the_job() -> None:
    with fake_job_server(None) as server:

        def interrupted() -> Any:
            if server.submitted:
                raise KeyboardInterrupt
            return 0

        with pytest.raises(KeyboardInterrupt):
            run(server, progress=interrupted)
        assert server.cancelled == 1


def test_a_look_says_what_the_job_server_has_in_hand() -> None:
    with fake_job_server(others=(2,)) as server:
        assert "has 2 job(s) in hand" in look_at_job_server(options(server))
        address = server.address
    with pytest.raises(RunnerAway, match="does not answer"):
        look_at_job_server(options(address))
