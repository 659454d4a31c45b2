"""With --json there is one object on standard output, however a command ends."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.run import command as run_module
from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
)
from transforms.model.errors import TryAgainLater

WHERE = ["--bootstrap_servers=b:1", "--topic=payments", "--json"]


def ran(capsys, path: Path, *more: str) -> tuple[int, dict[str, Any]]:
    """Exit status and the object of a `run` on the double."""
    status = cli.main(["run", *WHERE, f"--destination=duckdb:{path}", *more])
    (line,) = capsys.readouterr().out.splitlines()
    return status, json.loads(line)


def test_a_run_says_all_that_a_monitor_wants_to_know(
    kafka: InMemoryKafka, path: Path, capsys
) -> None:
    kafka.create("payments", 2)
    at = NOW_US - 24 * HOUR_US
    kafka.send(
        "payments", 0, payment("a", at), payment("a", at), MARKER, b"{", b"[", timestamp_us=at
    )
    kafka.send("payments", 1, b'{"transaction_id":"b"}', None)
    status, found = ran(capsys, path, "--max_records_per_run=4", "--max_rejected_rate=1")
    assert (status, found["exit_status"], found["error"]) == (0, 0, None)
    assert found["transactions"] == len(found["run_ids"]) == 2
    assert found["run_id"] == found["run_ids"][-1]
    assert (found["accepted"], found["duplicates"], found["rejected"]) == (1, 1, 4)
    assert found["gap_offsets"] == 1
    assert [part["gap_offsets"] for part in found["partitions"]] == [1, 0]
    assert found["rejected_by_reason"] == {"invalid_json": 2, "missing_field": 1, "null_value": 1}
    (missing,) = [one for one in found["rejected_details"] if one["reason"] == "missing_field"]
    assert (missing["topic"], missing["records"]) == ("payments", 1)
    assert "event_time" in missing["detail"] and missing["example"] == "payments:1:0"
    assert [
        (part["topic"], part["partition"], part["position"], part["end"], part["lag"])
        for part in found["positions"]
    ] == [("payments", 0, 5, 5, 0), ("payments", 1, 2, 2, 0)]
    assert found["positions"][0]["watermark"].endswith("Z")
    described = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    assert [key for key in found if f"`{key}`" not in described] == []


def test_a_run_with_nothing_new_says_where_it_is(kafka: InMemoryKafka, path: Path, capsys) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    status, found = ran(capsys, path)
    assert (status, found["exit_status"], found["transactions"]) == (0, 0, 0)
    assert (found["run_id"], found["run_ids"]) == (None, [])
    assert found["positions"][0]["position"] == 1


def test_a_refused_run_says_why_and_where_it_is(kafka: InMemoryKafka, path: Path, capsys) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.send("payments", 0, payment("b"), payment("c"), payment("d"))
    kafka.topics["payments"].partitions[0].deleted = 3
    status, found = ran(capsys, path)
    assert (status, found["exit_status"]) == (3, 3)
    assert found["error"].startswith("stopped: topic payments partition 0: offsets 1 to 2")
    assert (found["transactions"], found["accepted"]) == (0, 0)
    (position,) = found["positions"]
    assert (position["position"], position["end"], position["lag"]) == (1, 4, 3)


def test_a_run_that_is_refused_before_it_knows_anything(
    kafka: InMemoryKafka, path: Path, capsys
) -> None:
    status, found = ran(capsys, path)
    assert (status, found["exit_status"], found["positions"]) == (3, 3, [])
    assert "--topic=payments" in found["error"]


def test_a_run_that_stops_says_what_it_has_committed(
    kafka: InMemoryKafka, path: Path, capsys, monkeypatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *(payment(name) for name in "abc"))
    original, calls = run_module.read_and_write, []

    def second_fails(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise TryAgainLater("the service is away")
        original(*arguments)

    monkeypatch.setattr(run_module, "read_and_write", second_fails)
    status, found = ran(capsys, path, "--max_records_per_run=1")
    assert (status, found["error"]) == (5, "try again later: the service is away")
    assert (found["transactions"], found["accepted"], len(found["run_ids"])) == (1, 1, 1)
    assert found["run_id"] != found["run_ids"][0]
    assert (found["positions"][0]["position"], found["positions"][0]["lag"]) == (1, 2)


@pytest.mark.parametrize("number,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_interrupted(
    kafka: InMemoryKafka, path: Path, capsys, monkeypatch, number: int, status: int
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    monkeypatch.setattr(
        run_module, "read_and_write", lambda *_arguments: signal.raise_signal(number)
    )
    assert ran(capsys, path)[0] == status
    kafka.send("payments", 0, payment("b"))
    _, found = ran(capsys, path)
    assert found["exit_status"] == status and "nothing is half done" in found["error"]


def test_an_unforeseen_error(kafka: InMemoryKafka, path: Path, capsys, monkeypatch) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    monkeypatch.setattr(run_module, "read_and_write", lambda *_arguments: 1 // 0)
    status, found = ran(capsys, path)
    assert (status, found["exit_status"]) == (4, 4)
    assert found["positions"][0]["lag"] == 1


@pytest.mark.parametrize(
    "command",
    [
        ["run", *WHERE, "--destination=duckdb:x", "--shards=0"],
        ["preflight", *WHERE, "--destination=duckdb:x", "--shards=0"],
        ["check", "--destination=duckdb:x", "--json"],
        ["produce", *WHERE, "--messages=0"],
    ],
)
def test_every_command_is_refused_in_json(command: list[str], capsys) -> None:
    assert cli.main(command) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["exit_status"] == 2
    assert found["error"].startswith("wrong usage: --")


def test_without_the_flag_nothing_is_printed_for_a_refusal(
    kafka: InMemoryKafka, path: Path, capsys
) -> None:
    where = [argument for argument in WHERE if argument != "--json"]
    assert cli.main(["run", *where, f"--destination=duckdb:{path}"]) == 3
    assert capsys.readouterr().out == ""
