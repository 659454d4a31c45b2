"""`status`: who owns the tables, and what the job does, for a person and as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.failures import failure_of
from pipeline.streaming import status_command as status_module
from pipeline.streaming.begin import Begun
from pipeline.streaming.status_command import status_command
from pipeline.streaming.stop import stop_streaming
from tests.support.child_process import ending_with_this_process
from tests.support.fake_flink import JID, FakeFlink, counting
from tests.support.in_memory_kafka import NOW_US
from transforms.destinations.duckdb import open_files
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import FileInUse, GuaranteeError, UsageError
from transforms.stream.stop_on_error import StopOnError

MASTER = "--flink_master=localhost:8081"
WAS_LOST = "org.apache.flink.util.FlinkException: TaskExecutor is lost.\n\tat org.apache.x(y)"


@pytest.fixture(autouse=True)
def only_this_flink(flink: FakeFlink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "FlinkRest", flink)


def status(path: Path, *arguments: str, expected: int = 0) -> None:
    arguments = (f"--destination=duckdb:{path}", *arguments)
    assert status_command(arguments, lambda: NOW_US) == expected


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
    owner, positions, counters, *rest = capsys.readouterr().out.splitlines()
    assert owner == (
        f"the streaming job {begun.job.job_id} owns the tables since 2026-09-21T14:13:20Z,"
        " generation 1"
    )
    assert positions == (
        "  it began at payments:0: 0, payments:1: 0; a stop finds where the tables end by now"
    )
    assert counters.startswith("RUNNING: 12 waiting in Kafka, 6 accepted")
    assert rest == [
        "  lag: my_topic_1 5, payments_0 7",
        "  state: 6 live ids, 76 bytes",
        "  latency: half within 50 ms, 99 of 100 above 30,000 ms",
        "  4 appends, 2 sent again; 2 shards recovered, 9 rows found present",
        "  newest checkpoint: begun 3 s ago, 4,096 bytes, file:///checkpoints/b5d1/chk-7",
        "  restarts: 2; last failure: FlinkException: TaskExecutor is lost.",
    ]


def test_of_a_job_that_has_just_begun_no_zeros_are_shown(
    flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status(path, MASTER)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "RUNNING: Flink shows no figures",
        "  no complete checkpoint yet",
        "  restarts: 0",
    ]
    assert as_json(path, capsys, MASTER)["job"]["checkpoint"] is None
    flink.count("v1", "ReadLoop", records_read=0)
    status(path, MASTER)
    assert capsys.readouterr().out.splitlines()[3:] == [
        "  lag: unknown",
        "  state: not loaded yet; it is with the first records",
        "  latency: half unknown, 99 of 100 unknown",
        "  0 appends, 0 sent again; 0 shards recovered, 0 rows found present",
        "  no complete checkpoint yet",
        "  restarts: 0",
    ]


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
    status(path, MASTER, expected=3)
    printed = capsys.readouterr().out
    assert "--restore=latest" in printed
    assert "stop --lost" in printed
    status(path, MASTER, "--json", expected=3)
    found = json.loads(capsys.readouterr().out)
    assert (found["job"], found["exit_status"]) == (None, 3)
    assert found["error"] == printed.splitlines()[-1]


def test_without_flink_only_the_owner_is_shown(
    begun: Begun, flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = as_json(path, capsys)
    assert known["positions"] == [
        {"topic": "payments", "partition": 0, "offset": 0},
        {"topic": "payments", "partition": 1, "offset": 0},
    ]
    assert (known["exit_status"], known["error"], "job" in known) == (0, None, False)
    with DuckDBDestination(path) as destination:
        stop_streaming(destination, lambda: NOW_US)
    found = as_json(path, capsys, MASTER)
    assert (found["owner"], found["stop_marks"], "job" in found) == (None, [], False)
    status(path)
    owner, positions = capsys.readouterr().out.splitlines()
    assert "no streaming job owns the tables" in owner
    assert positions == "  bounded runs go on at payments:0: 0, payments:1: 0"
    assert flink.calls == []


def test_without_an_answer_of_flink_the_ledger_is_shown(
    begun: Begun, flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flink.answers = False
    status(path, MASTER, expected=5)
    owner, _, last = capsys.readouterr().out.splitlines()
    assert f"{begun.job.job_id} owns the tables" in owner
    assert last.startswith("--flink_master=localhost:8081: Flink does not answer")
    assert "Start the cluster" in last
    status(path, MASTER, "--json", expected=5)
    found = json.loads(capsys.readouterr().out)
    assert (found["owner"]["job_id"], found["job"]) == (begun.job.job_id, None)
    assert (found["exit_status"], found["error"]) == (5, last)


def test_a_job_whose_command_was_killed_is_shown_with_what_to_do(
    flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flink.state = "RESTARTING"
    status(path, MASTER, expected=3)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "its command, which is its worker, does not run" in last
    assert "--restore=latest` takes its place" in last and "`stop` ends it" in last


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_job_that_has_ended_is_shown_with_what_to_do_and_without_its_last_figures(
    flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    """Flink keeps the figures of a job that has ended as they were."""
    busy(flink)
    flink.state = state
    status(path, MASTER, expected=3)
    _, _, first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{state}: the job has ended, and owns the tables still: ")
    assert "--restore=latest` goes on, `stop` hands" in first
    assert rest == [
        "  newest checkpoint: begun 3 s ago, 4,096 bytes, file:///checkpoints/b5d1/chk-7",
        "  restarts: 2; last failure: FlinkException: TaskExecutor is lost.",
    ]
    status(path, MASTER, "--json", expected=3)
    found = json.loads(capsys.readouterr().out)
    assert (found["exit_status"], found["error"]) == (3, first)
    assert found["job"]["state"] == state
    assert "live_ids" not in found["job"]


def test_a_file_that_is_not_there_is_no_empty_destination(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such file"):
        status(tmp_path / "wrong.duckdb")


@pytest.fixture
def held(path: Path) -> Iterator[int]:
    """The process id of a job's worker that has the file open."""
    code = "import duckdb, sys; c = duckdb.connect(sys.argv[-1]); print(flush=True); input()"
    command = [sys.executable, "-c", code, "run", "--streaming", "--flink_master=f:1", str(path)]
    holder = subprocess.Popen(
        ending_with_this_process(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "\n"
    yield holder.pid
    holder.communicate("\n")


@pytest.fixture
def not_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files, "LOCK_WAIT_SECONDS", 0.0)


@pytest.mark.usefixtures("begun", "held", "not_waiting")
def test_a_file_that_the_job_holds_is_left_to_it_and_flink_asked(
    flink: FakeFlink, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy(flink)
    flink.options = {"destination": f"duckdb:{path}"}
    found = as_json(path, capsys, MASTER)
    assert (found["file_in_use"], found["job"]["state"]) == (True, "RUNNING")
    status(path, MASTER)
    first, counters, *_ = capsys.readouterr().out.splitlines()
    assert f"the streaming job {found['job_id']} writes to duckdb:{path}" in first
    assert "is its worker" in first and "Ctrl-C there takes a savepoint" in first
    assert counters.startswith("RUNNING: 12 waiting in Kafka")


@pytest.mark.usefixtures("begun", "held", "not_waiting")
def test_without_flink_the_holder_is_named_with_the_way_on(flink: FakeFlink, path: Path) -> None:
    with pytest.raises(FileInUse) as refused:
        status(path)
    line = failure_of(refused.value).line
    assert "It is the worker of a streaming job" in line
    assert f"Ctrl-C there (or `kill -INT {refused.value.pid}`)" in line
    assert "status --destination=... --flink_master=f:1` shows its counters" in line
    flink.options = {"destination": "duckdb:another.duckdb"}
    with pytest.raises(FileInUse, match="Flink at localhost:8081 runs no job that writes to it"):
        status(path, MASTER)
    flink.answers = False
    with pytest.raises(FileInUse, match="Flink does not answer"):
        status(path, MASTER)


def test_a_holder_that_is_no_job_is_not_called_one() -> None:
    for pid in (os.getpid(), None, 2**31):
        assert failure_of(FileInUse("in use.", pid)).line == "try again later: in use."


def test_a_format_that_there_is_not_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="--log_format=xml"):
        status(path, "--log_format=xml")
