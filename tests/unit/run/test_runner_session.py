"""What a runner needs around all runs of a process holds from the first to the last of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.run.command import run_command
from pipeline.run.every import Since, every_command
from runners.direct import DIRECT
from runners.profile import Build
from runners.spark.profile import SPARK
from runners.worker_end import broken_connections_hidden
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment

pytestmark = pytest.mark.usefixtures("one_topic")

BEGINS, RUN, PAUSE, ENDS = "begins", "run", "pause", "ends"


class Seen(list[str]):
    """What happened, in order, with DirectRunner."""

    def config(self, path: Path, **changes: Any) -> Any:
        @contextmanager
        def session() -> Iterator[None]:
            self.append(BEGINS)
            try:
                yield
            finally:
                self.append(ENDS)

        def run(build: Build, *rest: Any) -> None:
            self.append(RUN)
            DIRECT.run(build, *rest)

        runner = replace(DIRECT, session=session, run=run)
        return config(path, json=False, runner=runner, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payments.duckdb"


def test_around_a_run(kafka: InMemoryKafka, path: Path) -> None:
    seen = Seen()
    kafka.send("payments", 0, payment("a"))
    run_command(seen.config(path), lambda: NOW_US)
    assert seen == [BEGINS, RUN, ENDS]


def test_around_the_pauses_between_runs(kafka: InMemoryKafka, path: Path) -> None:
    seen = Seen()

    def sleep(_: float) -> None:
        seen.append(PAUSE)
        if seen.count(PAUSE) == 2:
            raise KeyboardInterrupt
        kafka.send("payments", 0, payment("b"))

    kafka.send("payments", 0, payment("a"))
    with pytest.raises(KeyboardInterrupt):
        settings = seen.config(path, every_us=1_000_000)
        every_command(settings, Since(), lambda: 0.0, sleep, lambda: NOW_US)
    assert seen == [BEGINS, RUN, PAUSE, RUN, PAUSE, ENDS]


def test_spark_s_lets_no_broken_connection_be_printed() -> None:
    assert SPARK.session is broken_connections_hidden
