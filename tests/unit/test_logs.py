"""What a command writes to standard error: times, run id, progress, and what is waited for."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from pipeline import cli, logs
from pipeline.logs import JSON, TEXT, logged, of_run
from pipeline.run import progress as progress_module
from pipeline.run.command import run_command
from pipeline.run.progress import Place, Progress, progress_shown
from tests.support.in_memory_kafka import InMemoryKafka, config, payment
from transforms.destinations.bigquery.answers import of_error
from transforms.destinations.bigquery.append_connection import AppendConnection
from transforms.destinations.bigquery.connection_ended import ConnectionEnded
from transforms.destinations.bigquery.retry import RetryPolicy
from transforms.model import waiting
from transforms.model.errors import GuaranteeError
from transforms.model.waiting import Waits

LOG = logging.getLogger("pipeline.some.step")
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


def test_a_line_has_its_time_level_and_run(capsys) -> None:
    with logged(TEXT):
        LOG.warning("before any %s", "run")
        of_run("run-7")
        LOG.warning("within it")
    before, within = capsys.readouterr().err.splitlines()
    assert re.fullmatch(rf"{TIME} WARNING: before any run", before)
    assert re.fullmatch(rf"{TIME} WARNING run-7: within it", within)


def test_a_line_of_json_is_one_object(capsys) -> None:
    with logged(JSON):
        of_run("run-7")
        try:
            raise ZeroDivisionError("surprise")
        except ZeroDivisionError:
            LOG.exception("two\nlines")
    (line,) = capsys.readouterr().err.splitlines()
    found = json.loads(line)
    assert re.fullmatch(TIME, found["time"])
    assert (found["level"], found["run_id"], found["message"]) == ("ERROR", "run-7", "two\nlines")
    assert "ZeroDivisionError: surprise" in found["traceback"]


@pytest.mark.parametrize("flag", [["--log_format=json"], ["--log_format", "json"]])
def test_the_end_of_a_command_is_json_too(monkeypatch, capsys, flag: list[str]) -> None:
    def stopped(_: list[str]) -> int:
        of_run("run-7")
        raise GuaranteeError("offset 7 is gone")

    monkeypatch.setitem(cli._COMMANDS, "run", stopped)
    assert cli.main(["run", *flag]) == 3
    found = json.loads(capsys.readouterr().err)
    assert (found["message"], found["exit_status"]) == ("stopped: offset 7 is gone", 3)
    assert (found["level"], found["run_id"]) == ("ERROR", "run-7")


def test_wrong_usage_and_surprises_are_json_too(monkeypatch, capsys) -> None:
    assert cli.main(["run", "--log_format=json", "--topik=x"]) == 2
    assert json.loads(capsys.readouterr().err)["exit_status"] == 2

    def broken(_: list[str]) -> int:
        raise ZeroDivisionError("surprise")

    monkeypatch.setitem(cli._COMMANDS, "run", broken)
    assert cli.main(["run", "--log_format=json"]) == 4
    assert "ZeroDivisionError: surprise" in json.loads(capsys.readouterr().err)["traceback"]


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--bootstrap_servers=b:1", "--topic=t", "--destination=duckdb:x"],
        ["preflight", "--bootstrap_servers=b:1", "--topic=t", "--destination=duckdb:x"],
        ["check", "--destination=duckdb:x"],
        ["produce", "--bootstrap_servers=b:1", "--topic=t", "--messages=1"],
    ],
)
def test_an_unknown_format_is_wrong_usage(command: list[str], capsys) -> None:
    assert cli.main([*command, "--log_format=xml"]) == 2
    assert "--log_format=xml: allowed are text and json" in capsys.readouterr().err


BEAM = logging.getLogger("apache_beam.runners.common")


@pytest.mark.parametrize(
    "error,lines",
    [
        (GuaranteeError("offset 7 is gone"), 0),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 0),
        (RuntimeError(f"{GuaranteeError('offset 7 is gone')} [while running 'WriteRows']"), 0),
        (ZeroDivisionError("surprise"), 1),
    ],
)
def test_a_runner_shows_no_traceback_of_what_is_foreseen(
    capsys, error: Exception, lines: int
) -> None:
    with logged(JSON):
        try:
            raise error
        except Exception as raised:
            BEAM.error("%s [while running 'WriteRows']", raised, exc_info=True)
        BEAM.error("Traceback (most recent call last):\n%s", error)
        LOG.error("ours are always shown: %s", GuaranteeError("x"))
    assert len(capsys.readouterr().err.splitlines()) == 2 * lines + 1


def test_a_step_that_fails_as_foreseen_ends_a_run_with_one_line(
    kafka: InMemoryKafka, path: Path, monkeypatch, capsys
) -> None:
    from transforms.destinations.duckdb.streams import DuckDBStreams

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(DuckDBStreams, "send", full)
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    where = ["--bootstrap_servers=b:1", "--topic=payments", f"--destination=duckdb:{path}"]
    assert cli.main(["run", *where]) == 3
    begins, stopped = capsys.readouterr().err.splitlines()
    assert " begins: " in begins
    assert stopped.startswith("stopped: the disk is full (")


def test_logging_is_as_it_was_afterwards() -> None:
    before = logging.getLogger("pipeline").level, list(logging.getLogger().handlers)
    with logged(TEXT):
        pass
    assert (logging.getLogger("pipeline").level, logging.getLogger().handlers) == before


# Progress.


def test_the_figures_of_progress() -> None:
    read, now = [500], [100.0]
    progress = Progress(Place(2, 4), 1_000_000, lambda: read[0], lambda: now[0])
    assert progress.figures() == (
        "transaction 2 of 4: 0% of 1,000,000 records, 0/s, none read for 0 s"
    )
    now[0] += 5
    assert progress.figures().endswith("0/s, none read for 5 s")
    read[0] += 250_000
    assert progress.figures() == (
        "transaction 2 of 4: 25% of 1,000,000 records, 50,000/s, 15 s left"
    )
    now[0] += 995
    assert progress.figures().endswith("250/s, 50 min 0 s left")
    read[0] += 750_000
    assert progress.figures().endswith(
        "100% of 1,000,000 records, 1,000/s, all read, being written"
    )
    assert progress.share() == 1.0


def test_the_progress_of_workers_elsewhere_is_time() -> None:
    now = [100.0]
    progress = Progress(Place(1, 1), 5_000, lambda: 0, lambda: now[0], is_here=False)
    now[0] += 61
    assert progress.figures() == (
        "transaction 1 of 1: at most 5,000 records, 1 min 1 s so far; the workers are other"
        " processes"
    )


def test_more_transactions_than_were_expected() -> None:
    """A repair comes on top, and offsets without a record make the last one smaller."""
    assert str(Place(3, 2)) == "transaction 3 of 3"


class Shown(threading.Event):
    """In place of the event that ends the thread of progress: each wait is over at once."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.waits: list[float | None] = []
        self.times = times
        self.enough = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout)
        if len(self.waits) > self.times:
            self.enough.set()
            return super().wait(60)
        return False


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    event = Shown(2)
    monkeypatch.setattr(
        progress_module,
        "threading",
        SimpleNamespace(Event=lambda: event, Thread=threading.Thread),
    )
    return event


def test_without_a_terminal_a_line_comes_every_30_seconds(capsys, shown: Shown) -> None:
    with logged(TEXT), progress_shown(Place(1, 1), 10):
        assert shown.enough.wait(60)
    lines = capsys.readouterr().err.splitlines()
    assert shown.waits == [30.0] * 3
    assert len(lines) == 2
    for line in lines:
        assert re.match(rf"{TIME} INFO: transaction 1 of 1: 0% of 10 records", line)


def test_a_run_says_which_transaction_it_is_at(kafka: InMemoryKafka, path: Path, capsys) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *(payment(name) for name in "abcde"))
    with logged(JSON):
        run_command(config(path, max_records_per_run=2))
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    begun = [line for line in said if " begins: " in line["message"]]
    assert [line["message"] for line in begun] == [
        f"transaction {number} of 3 begins: at most {most}"
        for number, most in ((1, "2 records"), (2, "2 records"), (3, "1 record"))
    ]
    committed = [line for line in said if " is committed: " in line["message"]]
    assert "2 rows in payment_transactions" in committed[0]["message"]
    assert [line["run_id"] for line in begun] == [line["run_id"] for line in committed]
    assert len({line["run_id"] for line in begun}) == 3


# Waits.


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_wait_of_more_than_15_seconds_says_what_is_waited_for_and_why(caplog) -> None:
    clock, reasons = Clock(), [None, "503 the service is away"]
    waits = Waits(clock)
    with waits.waiting_for("BigQuery: a commit", lambda: reasons.pop(0)):
        for clock.now in (14.9, 15.0, 16.0, 29.9, 30.0, 59.0):
            waits.look()
    clock.now = 900.0
    waits.look()
    assert caplog.messages == [
        "still waiting for BigQuery: a commit: 15 s so far",
        "still waiting for BigQuery: a commit: 30 s so far (503 the service is away)",
    ]


def test_a_short_wait_and_a_wait_that_failed_say_nothing(caplog) -> None:
    clock = Clock()
    waits = Waits(clock)
    with pytest.raises(ValueError), waits.waiting_for("a query"):
        raise ValueError
    clock.now = 99.0
    waits.look()
    assert caplog.messages == []


def looked_at(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """This process's waits, on a clock of the test."""
    clock = Clock()
    monkeypatch.setattr(waiting, "_WAITS", Waits(clock))
    return clock


def look(clock: Clock, seconds: float) -> None:
    clock.now += seconds
    waiting._WAITS.look()


def test_an_append_that_nobody_answers_is_named(monkeypatch, caplog) -> None:
    import pyarrow as pa

    clock = looked_at(monkeypatch)

    class Call:
        def __next__(self) -> Any:
            look(clock, 20.0)
            raise ConnectionEnded

        def cancel(self) -> None: ...

    def retry_policy() -> RetryPolicy:
        return RetryPolicy(clock=clock, sleep=lambda _seconds: None)

    connection = AppendConnection(
        lambda *_, **__: Call(), "projects/p/streams/s", True, retry_policy
    )
    append = connection.send(0, pa.record_batch({"a": [1]}))
    with pytest.raises(GuaranteeError, match="did not succeed within 600 s"):
        append.wait()
    ended = of_error(ConnectionEnded()).text
    what = "still waiting for BigQuery to answer an append to write stream projects/p/streams/s"
    assert caplog.messages[:2] == [
        f"{what}: 20 s so far",
        f"{what}: 40 s so far ({ended})",
    ]


def test_a_commit_of_offsets_that_kafka_does_not_answer_is_named(monkeypatch, caplog) -> None:
    from pipeline.lag_report import LagReport

    clock = looked_at(monkeypatch)

    class Silent:
        def commit(self, **_: object) -> None:
            look(clock, 20.0)
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    LagReport("b:1", Silent(), lambda: None).commit({("p", 0): 1})
    assert "still waiting for Kafka at b:1: the group's offsets" in caplog.messages[0]


def test_a_query_of_each_destination_is_named(monkeypatch, caplog, tmp_path: Path) -> None:
    from transforms.destinations.bigquery.queries import _explained
    from transforms.destinations.bigquery.retry import patiently
    from transforms.destinations.duckdb.session import DuckDBSession

    clock = looked_at(monkeypatch)
    with _explained(1):
        look(clock, 20.0)
    patiently("finalizing stream s", lambda: look(clock, 20.0))
    session = DuckDBSession(str(tmp_path / "a.duckdb"))
    session.open()
    session.atomically(lambda _cursor: look(clock, 20.0))
    session.close()
    assert [message.partition(" so far")[0] for message in caplog.messages] == [
        "still waiting for BigQuery: a query: 20 s",
        "still waiting for BigQuery: finalizing stream s: 20 s",
        f"still waiting for duckdb:{tmp_path / 'a.duckdb'}: a commit: 20 s",
    ]


def test_only_a_terminal_gets_a_bar(capsys) -> None:
    assert not logs.shows_bar()


def test_rich_is_imported_on_a_terminal_only(tmp_path: Path) -> None:
    """Neither the help nor a run whose lines go to a file takes the time of its import."""
    run = ["-m", "tests.support.run_on_terminal", "well", str(tmp_path / "a.duckdb")]
    for arguments in (["-m", "pipeline", "--help"], ["-m", "pipeline", "run", "--help"], run):
        ran = subprocess.run(
            [sys.executable, "-X", "importtime", *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
        imported = [line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()]
        assert "argparse" in imported
        assert not [name for name in imported if name.split(".")[0] == "rich"]
