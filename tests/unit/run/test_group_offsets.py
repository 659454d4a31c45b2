"""Lag monitors see how far the ledger is, also where the run that read it could not report it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.dying import ProcessDied, die_after
from tests.support.in_memory_kafka import InMemoryKafka, config, payment, run
from transforms.model.errors import GuaranteeError


def test_a_finished_run_is_reported_by_the_run_that_finishes_it(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("b"))
    die_after(1, path, monkeypatch)
    assert kafka.committed == {}
    assert run(config(path)) == []
    assert kafka.committed == {("payments", 0): 2}


def test_a_run_that_died_before_its_report_is_reported_by_the_next_one(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))

    def dying(_positions: object) -> None:
        raise ProcessDied

    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(kafka, "commit_offsets", dying)
        run(config(path))
    assert run(config(path)) == []
    assert kafka.committed == {("payments", 0): 1}


def test_a_cluster_that_the_run_must_not_read_gets_no_report(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    die_after(1, path, monkeypatch)
    kafka.cluster = "cluster-2"
    with pytest.raises(GuaranteeError, match="cluster-2"):
        run(config(path))
    assert kafka.committed == {}
