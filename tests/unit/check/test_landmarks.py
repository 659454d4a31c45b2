"""`check` reads the whole chain, so it finds out where a run would be told something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.support.in_memory_kafka import HOUR_US, InMemoryKafka, config, payment, run, table
from tests.support.whole_runs import failures
from transforms.destinations.contract.run_tail import LANDMARKS

NEWEST = "SELECT run_id, settings FROM pipeline_runs WHERE successor IS NULL"


@pytest.fixture
def filled(kafka: InMemoryKafka, path: Path) -> Path:
    """Three runs; the watermark of partition 1 is of the first one, which had another horizon."""
    kafka.create("payments", 2)
    kafka.send("payments", 1, payment("a"))
    for number, horizon in enumerate((HOUR_US, 2 * HOUR_US, 2 * HOUR_US)):
        kafka.send("payments", 0, payment(str(number)))
        run(config(path, dedup_horizon_us=horizon))
    return path


def altered(path: Path, marks: Any) -> str:
    """Sets the landmarks of the newest record; returns its run_id."""
    ((run_id, settings),) = table(path, NEWEST)
    text = json.dumps({**json.loads(settings), LANDMARKS: marks})
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE pipeline_runs SET settings = ? WHERE run_id = ?", [text, run_id])
    return str(run_id)


def test_landmarks_that_were_altered_are_found_out(filled: Path) -> None:
    assert failures(filled) == []
    ((_, settings),) = table(filled, NEWEST)
    first, second = json.loads(settings)[LANDMARKS]
    run_id = altered(filled, [second])
    (failed,) = failures(filled)
    assert failed.name == "the ledger is one chain"
    assert failed.proof == [
        {
            "run_id": run_id,
            "problem": "its landmarks tell the horizon of a watermark otherwise than the whole"
            " chain",
        }
    ]
    altered(filled, [["run-none", 0], second])
    (failed,) = failures(filled)
    assert "run-none are not in the chain" in failed.proof[0]["problem"]
    altered(filled, [first, second])
    assert failures(filled) == []


def test_a_record_that_names_none_is_as_those_of_earlier_versions(filled: Path) -> None:
    altered(filled, None)
    assert failures(filled) == []
