"""`run --streaming` from its arguments to its end, but for Beam and Flink."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.streaming import command as command_module
from pipeline.streaming.flink_job import FlinkJob
from tests.support.fake_flink import JID, FakeFlink
from tests.support.in_memory_kafka import InMemoryKafka, payment
from transforms.model.errors import TryAgainLater


@pytest.fixture
def flink(kafka: InMemoryKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFlink:
    """Takes every job, which has ended before it is looked at."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    double = FakeFlink()
    double.state = "CANCELED"
    double.keys = {"state.checkpoints.dir": tmp_path.as_uri()}
    for name, replaced in {
        "FlinkRest": double,
        "KafkaAdmin": kafka,
        "check_cluster": lambda *_: None,
        "check_job_server": lambda *_: None,
        "_submit": lambda *_: FlinkJob(double, JID),
    }.items():
        monkeypatch.setattr(command_module, name, replaced)
    return double


def ran(path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any]]:
    status = cli.main(
        [
            "run", "--streaming", "--runner=FlinkRunner", "--flink_master=localhost:8081",
            "--job_endpoint=localhost:8099", "--bootstrap_servers=b:1", "--topic=payments",
            f"--destination=duckdb:{path}", "--json",
        ]
    )  # fmt: skip
    (line,) = capsys.readouterr().out.splitlines()
    return status, json.loads(line)


def test_with_json_the_end_of_the_command_says_which_job_it_was(
    flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = ran(path, capsys)
    assert status == 0
    assert found.pop("job_id").startswith("job-")
    assert found == {
        "exit_status": 0,
        "error": None,
        "generation": 1,
        "flink_id": JID,
        "state": "CANCELED",
    }


def test_with_json_a_job_that_was_begun_and_not_taken_is_named(
    flink: FakeFlink,
    path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(*_: object) -> None:
        raise TryAgainLater("no slot")

    monkeypatch.setattr(command_module, "_submit", refused)
    status, found = ran(path, capsys)
    assert (status, found["exit_status"], found["error"]) == (5, 5, "try again later: no slot")
    assert found["job_id"] and found["flink_id"] is None
