"""`status`: who owns the tables, and what the job does, for a person and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.streaming import status_command as status_module
from pipeline.streaming.begin import Begun
from pipeline.streaming.status_command import status_command
from pipeline.streaming.stop import stop_streaming
from tests.support.fake_flink import JID, FakeFlink, counting
from tests.support.in_memory_kafka import NOW_US
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError
from transforms.stream.stop_on_error import StopOnError

MASTER = "--flink_master=localhost:8081"
WAS_LOST = "org.apache.flink.util.FlinkException: TaskExecutor is lost.\n\tat org.apache.x(y)"


@pytest.fixture(autouse=True)
def only_this_flink(flink: FakeFlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "FlinkRest", flink)


def status(path: Path, *arguments: str) -> None:
    assert status_command([f"--destination=duckdb:{path}", *arguments], lambda: NOW_US) == 0


def as_json(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    status(path, "--json", *arguments)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def busy(flink: FakeFlink) -> None:
    counting(flink)
    flink.failures, flink.restarts = [WAS_LOST, "older"], 2
    flink.checkpoint = {
        "trigger_timestamp": NOW_US // 1000 - 3_000,
        "state_size": 4_096,
        "external_path": "file:///checkpoints/b5d1/chk-7",
    }


def test_the_json_has_the_owner_and_everything_of_the_job(
    begun: Begun, flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy(flink)
    found = as_json(path, capsys, MASTER)
    assert found["owner"]["job_id"] == begun.job.job_id
    job = found["job"]
    assert {
        "flink_id": JID,
        "state": "RUNNING",
        "restarts": 2,
        "last_failure": "FlinkException: TaskExecutor is lost.",
        "checkpoint": {
            "path": "file:///checkpoints/b5d1/chk-7",
            "begun_us": NOW_US - 3_000_000,
            "age_us": 3_000_000,
            "bytes": 4_096,
        },
        "kafka_lag": {"my_topic_1": 5, "payments_0": 7},
        "state_bytes": 76,
        "live_ids": 6,
        "append_retries": 2,
    }.items() <= job.items()


def test_a_person_sees_the_same(
    begun: Begun, flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy(flink)
    status(path, MASTER)
    owner, counters, *rest = capsys.readouterr().out.splitlines()
    assert f"the streaming job {begun.job.job_id} owns the tables" in owner
    assert counters.startswith("RUNNING: 12 waiting in Kafka, 6 accepted")
    assert rest == [
        "  lag: my_topic_1 5, payments_0 7",
        "  state: 6 live ids, 76 bytes",
        "  latency: half within 50 ms, 99 of 100 above 30,000 ms",
        "  4 appends, 2 sent again; 2 shards recovered, 9 rows found present",
        "  newest checkpoint: begun 3 s ago, 4,096 bytes, file:///checkpoints/b5d1/chk-7",
        "  restarts: 2; last failure: FlinkException: TaskExecutor is lost.",
    ]


def test_a_job_that_has_just_begun_has_figures_too(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status(path, MASTER)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "  lag: unknown",
        "  state: 0 live ids, 0 bytes",
        "  latency: half unknown, 99 of 100 unknown",
        "  0 appends, 0 sent again; 0 shards recovered, 0 rows found present",
        "  no complete checkpoint yet",
        "  restarts: 0",
    ]
    assert as_json(path, capsys, MASTER)["job"]["checkpoint"] is None


def test_an_error_that_a_person_must_decide_is_shown_also_when_the_job_has_ended(
    begun: Begun, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_json(path, capsys)["stop_marks"] == []
    stop = StopOnError(DuckDBDestination(str(path)), begun.job, lambda: None)
    stop.failed("payments:0", GuaranteeError("offsets 0 to 4 were deleted"))
    assert as_json(path, capsys)["stop_marks"] == ["offsets 0 to 4 were deleted"]
    status(path)
    assert "must decide" in (line := capsys.readouterr().out.splitlines()[1])
    assert line.endswith(": offsets 0 to 4 were deleted")


def test_a_job_that_flink_does_not_run_is_shown_with_what_to_do(
    flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flink.name = "another job"
    status(path, MASTER)
    printed = capsys.readouterr().out
    assert "--restore=latest" in printed
    assert "stop --lost" in printed
    assert as_json(path, capsys, MASTER)["job"] is None


def test_without_flink_only_the_owner_is_shown(
    begun: Begun, flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_json(path, capsys).keys() == {"owner", "stop_marks"}
    with DuckDBDestination(path) as destination:
        stop_streaming(destination, lambda: NOW_US)
    assert as_json(path, capsys, MASTER) == {"owner": None, "stop_marks": []}
    status(path)
    assert "no streaming job owns the tables" in capsys.readouterr().out
    assert flink.calls == []


def test_a_flink_that_does_not_answer_is_named(flink: FakeFlink, path: Path) -> None:
    flink.answers = False
    with pytest.raises(TryAgainLater, match=r"--flink_master=localhost:8081: .*Start the cluster"):
        status(path, MASTER)


def test_a_format_that_there_is_not_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="--log_format=xml"):
        status(path, "--log_format=xml")
