"""`stop`: a savepoint, the end of the job in Flink, and the tables handed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.streaming import stop_command as stop_module
from pipeline.streaming.begin import Begun, begin_streaming
from pipeline.streaming.stop_command import stop_command
from tests.support.fake_flink import JID, FakeFlink
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config
from transforms.destinations.contract.ownership import owner_of
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import TryAgainLater, UsageError

MASTER = "--flink_master=localhost:8081"
CANCEL, SAVEPOINT = f"PATCH /jobs/{JID}", f"POST /jobs/{JID}/savepoints"


@pytest.fixture(autouse=True)
def only_this_flink(flink: FakeFlink, monkeypatch: pytest.MonkeyPatch) -> None:
    flink.keys = {"state.savepoints.dir": "file:///savepoints"}
    monkeypatch.setattr(stop_module, "FlinkRest", flink)


def stop(path: Path, *arguments: str) -> None:
    assert stop_command([f"--destination=duckdb:{path}", *arguments], lambda: NOW_US) == 0


def is_owned(path: Path) -> bool:
    with DuckDBDestination(path) as destination:
        return owner_of(destination.runs.read()) is not None


def changes(flink: FakeFlink) -> list[str]:
    return [call for call in flink.calls if not call.startswith("GET")]


def test_a_job_is_stopped_behind_a_savepoint(
    begun: Begun, flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop(path, MASTER)
    assert changes(flink) == [SAVEPOINT, CANCEL]
    assert flink.target == "file:///savepoints"
    assert not is_owned(path)
    assert capsys.readouterr().out.splitlines() == [
        f"job {begun.job.job_id} is stopped; bounded runs go on at",
        "  payments:0: 0",
        "  payments:1: 0",
    ]
    stop(path, "--lost")
    assert "was stopped before; nothing was changed" in capsys.readouterr().out


def test_the_json_has_the_positions(
    begun: Begun, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop(path, MASTER, "--json")
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (found["job_id"], found["already"]) == (begun.job.job_id, False)
    assert found["unobserved_windows"] == []
    assert found["positions"] == [
        {"topic": "payments", "partition": 0, "offset": 0},
        {"topic": "payments", "partition": 1, "offset": 0},
    ]


@pytest.mark.parametrize("state", ["RESTARTING", "FAILING"])
def test_a_job_that_does_not_run_is_cancelled_without_a_savepoint(
    flink: FakeFlink, path: Path, state: str
) -> None:
    flink.state = state
    stop(path, MASTER)
    assert changes(flink) == [CANCEL]
    assert not is_owned(path)


def test_a_cluster_without_a_place_for_savepoints_takes_none(flink: FakeFlink, path: Path) -> None:
    flink.keys = {}
    stop(path, MASTER)
    assert changes(flink) == [CANCEL]


@pytest.mark.parametrize("name", ["another job", None])
def test_a_job_that_flink_does_not_run_any_more_is_handed_over(
    flink: FakeFlink, path: Path, name: str | None
) -> None:
    flink.name, flink.state = name or flink.name, "FAILED"
    stop(path, MASTER)
    assert changes(flink) == []
    assert not is_owned(path)


def test_without_a_cluster_flink_is_not_asked(flink: FakeFlink, path: Path) -> None:
    flink.answers = False
    stop(path, "--lost")
    assert flink.calls == []
    assert not is_owned(path)


def test_a_flink_that_does_not_answer_leaves_the_tables_as_they_are(
    flink: FakeFlink, path: Path
) -> None:
    flink.answers = False
    with pytest.raises(TryAgainLater) as refused:
        stop(path, MASTER)
    assert "--flink_master=localhost:8081" in refused.value.message
    assert "--lost" in refused.value.message
    assert is_owned(path)


def test_a_job_that_begins_while_an_idle_destination_is_stopped_goes_on(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(path, "--lost")
    look = stop_module.look_before_stop

    def begins_behind(destination: Any) -> Any:
        seen = look(destination)
        begin_streaming(config(path), destination, kafka, lambda: NOW_US)
        return seen

    monkeypatch.setattr(stop_module, "look_before_stop", begins_behind)
    stop(path, "--lost")
    assert is_owned(path), "it was not there when the command looked whom to stop"


def test_a_savepoint_that_fails_does_not_hold_up_the_hand_over(
    flink: FakeFlink, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Positions come from the tables. A job whose savepoint fails could never be stopped else."""
    flink.savepoint_failure = "Failed.\nCaused by: java.io.IOException: No space left on device"
    stop(path, MASTER)
    assert changes(flink) == [SAVEPOINT, CANCEL]
    assert not is_owned(path)
    assert "No space left on device" in caplog.text


@pytest.mark.parametrize("arguments", [[], [MASTER, "--lost"]], ids=["neither", "both"])
def test_a_cluster_is_named_or_lost(path: Path, arguments: list[str]) -> None:
    with pytest.raises(UsageError, match=r"either --flink_master=HOST:PORT.* or --lost"):
        stop(path, *arguments)
