"""What the first run leaves out is said: --start counts once."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pipeline.options.config import EARLIEST, LATEST, Start
from tests.support.in_memory_kafka import InMemoryKafka, config, payment, run
from tests.support.whole_runs import ids

SAID = (
    "--start=latest: this destination never reads 3 of the 3 offsets that topic payments has: they"
    " lie before it"
)


def test_records_before_the_start_are_named_once(
    kafka: InMemoryKafka, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"), payment("b"))
    kafka.send("payments", 1, payment("c"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            run(config(path, start=Start(LATEST, given="latest")))
            kafka.send("payments", 1, payment("d"))
    assert [each.getMessage() for each in caplog.records if "never" in each.getMessage()] == [SAID]
    assert ids(path) == ["d"]


def test_a_start_that_leaves_nothing_out_is_not_spoken_of(
    kafka: InMemoryKafka, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    with caplog.at_level(logging.WARNING):
        run(config(path, start=Start(EARLIEST, given="earliest")))
    assert ids(path) == ["a"]
    assert "never reads" not in caplog.text
