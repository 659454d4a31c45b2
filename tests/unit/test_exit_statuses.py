"""An alert tells by the exit status alone whether a person must decide, or the next run will do."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest
import requests
from google.api_core.exceptions import Conflict, Forbidden, RetryError, ServiceUnavailable
from google.auth.exceptions import RefreshError, TransportError

from pipeline import cli
from pipeline.failures import failure_of
from pipeline.interrupt import finish_before_interrupt
from pipeline.run.begin import lost_race
from pipeline.run.commit import COMMIT_WITHIN_SECONDS, Moment
from tests.support.in_memory_kafka import InMemoryKafka, config, payment, run, table
from tests.support.whole_runs import IDS, failures
from transforms.destinations.bigquery.answers import Answer, Meaning
from transforms.destinations.bigquery.queries import _explained
from transforms.destinations.bigquery.retry import raise_if_final, reachable
from transforms.destinations.duckdb.open_files import acquire
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError

RUN = ["run", "--bootstrap_servers=127.0.0.1:1", "--topic=payments"]


def ends_with(monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """The exit status of a `run` that does `work`."""

    def command(_arguments: list[str]) -> int:
        work()
        return 0

    monkeypatch.setitem(cli._COMMANDS, "run", command)
    return cli.main(["run"])


def raising(error: Exception) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


def test_what_passes_by_itself_is_5_and_what_a_person_must_decide_is_3(monkeypatch, capsys) -> None:
    assert ends_with(monkeypatch, raising(TryAgainLater("the broker is away"))) == 5
    assert capsys.readouterr().err == "try again later: the broker is away\n"
    assert ends_with(monkeypatch, raising(GuaranteeError("offset 7 is gone"))) == 3
    assert capsys.readouterr().err == "stopped: offset 7 is gone\n"


def test_both_are_known_by_their_text_alone_and_by_their_cause(monkeypatch, capsys) -> None:
    text = f"Traceback ... {TryAgainLater('in use')} [while running 'WriteRows']"
    assert ends_with(monkeypatch, raising(RuntimeError(text))) == 5
    assert capsys.readouterr().err == "try again later: in use\n"
    caused = RuntimeError("the runner's own words")
    caused.__cause__ = TryAgainLater("in use")
    assert failure_of(caused).status == 5
    caused.__cause__ = GuaranteeError("lost")
    assert failure_of(caused).status == 3


def test_another_run_that_was_faster_is_5(kafka: InMemoryKafka, path: Path, monkeypatch) -> None:
    from pipeline.run import prepare as prepare_step

    assert failure_of(lost_race("genesis")).status == 5
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.send("payments", 0, payment("b"))
    original = prepare_step.make_record

    def overtaken(*arguments):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(prepare_step, "make_record", original)
        record = original(*arguments)
        run(config(path))
        return record

    monkeypatch.setattr(prepare_step, "make_record", overtaken)
    with pytest.raises(TryAgainLater, match="another run has"):
        run(config(path))
    assert failures(path) == []


def test_a_commit_that_took_too_long_is_left_to_the_next_run() -> None:
    now = Moment.now()
    with pytest.raises(TryAgainLater, match="Run again"):
        Moment(now.wall - COMMIT_WITHIN_SECONDS - 1, now.monotonic).must_be_recent("r")


def test_a_duckdb_file_in_use_is_5(tmp_path: Path) -> None:
    held = tmp_path / "payments.duckdb"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print(flush=True);"
            " sys.stdin.read()",
            str(held),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    ticks = iter((0.0, 1.0, 6.0))
    try:
        with pytest.raises(TryAgainLater, match=f"process {holder.pid} has the file open"):
            acquire(str(held), clock=lambda: next(ticks), sleep=lambda _seconds: None)
    finally:
        holder.communicate()


def test_a_path_with_lock_in_its_name_is_not_taken_for_a_locked_file(tmp_path: Path) -> None:
    """Only DuckDB's own words say that; a file that is no database never becomes one by waiting."""
    broken = tmp_path / "blocked.duckdb"
    broken.write_text("no database")
    with pytest.raises(UsageError, match="cannot be opened as a DuckDB file"):
        acquire(str(broken))


@pytest.mark.parametrize(
    "error,status",
    [
        (ServiceUnavailable("away"), 5),
        (RetryError("the deadline is over", None), 5),
        (TransportError("no route to oauth2.googleapis.com"), 5),
        (requests.exceptions.ConnectionError("refused"), 5),
        (RefreshError("the server for tokens is away", retryable=True), 5),
        (RefreshError("invalid_grant"), 3),
    ],
)
def test_bigquery_away_is_5_and_refused_credentials_are_3(error: Exception, status: int) -> None:
    with pytest.raises(GuaranteeError) as query, _explained(1):
        raise error
    with pytest.raises(GuaranteeError) as call, reachable("what table payments is like"):
        raise error
    assert [failure_of(found.value).status for found in (query, call)] == [status, status]


@pytest.mark.parametrize(
    "reason,status",
    [("quotaExceeded", 5), ("rateLimitExceeded", 5), ("accessDenied", 3)],
)
def test_a_quota_fills_up_again_and_a_right_does_not_come_by_itself(
    reason: str, status: int
) -> None:
    with pytest.raises(GuaranteeError) as found, _explained(1):
        raise Forbidden("no", errors=[{"reason": reason}])
    assert failure_of(found.value).status == status


@pytest.mark.parametrize(
    "meaning,status",
    [(Meaning.TRY_AGAIN, 5), (Meaning.SLOW_DOWN, 5), (Meaning.DENIED, 3), (Meaning.NO_TABLE, 3)],
)
def test_an_append_that_was_never_answered_is_5(meaning: Meaning, status: int) -> None:
    with pytest.raises(GuaranteeError) as found:
        raise_if_final("an append", Answer(meaning, "as the service said it"))
    assert failure_of(found.value).status == status


def test_two_runs_that_create_a_table_at_one_moment_is_5() -> None:
    from transforms.destinations.bigquery.tables import _explained as creating

    with pytest.raises(TryAgainLater), creating("creating table payments"):
        raise Conflict("already exists")


def test_check_does_not_call_the_proof_broken_because_the_service_is_away(
    kafka: InMemoryKafka, path: Path, monkeypatch, capsys
) -> None:
    from transforms.destinations.duckdb.run_ledger import DuckDBRunLedger

    kafka.create("payments", 1)
    run(config(path))

    def away(_self: object) -> None:
        raise TryAgainLater("no answer")

    monkeypatch.setattr(DuckDBRunLedger, "read", away)
    assert cli.main(["check", f"--destination=duckdb:{path}"]) == 5
    assert capsys.readouterr().err == "try again later: no answer\n"


# A full disk.


def on_a_full_disk(path: str) -> None:
    """The statement that fails as on a full disk: files may not grow beyond 1 MB."""
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE t AS SELECT md5(i::VARCHAR) AS a FROM range(500000) r(i)")


def test_a_full_disk_is_3_with_a_clear_line_and_no_traceback(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pipeline import cli;"
        " from tests.unit.test_exit_statuses import on_a_full_disk;"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        " cli._COMMANDS['run'] = lambda _: on_a_full_disk(sys.argv[1]);"
        " sys.exit(cli.main(['run']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.duckdb")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("stopped: the disk is full (")
    assert "Make room" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/spill"),
        OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
        duckdb.IOException('Could not write file "a.duckdb.wal": No space left on device'),
        duckdb.TransactionException(
            'Failed to commit: Could not write file "a.duckdb.wal": No space left on device'
        ),
        duckdb.OutOfMemoryException(
            "failed to offload data block of size 256.0 KiB (1.0 GiB/1.0 GiB used).\nThis limit was"
            " set by the 'max_temp_directory_size' setting."
        ),
        RuntimeError(
            "Traceback ...\n_duckdb.IOException: IO Error: No space left on device\n"
            "[while running 'WriteRows']"
        ),
    ],
)
def test_every_way_to_say_that_the_disk_is_full(error: Exception) -> None:
    try:
        try:
            raise error
        finally:  # what is tried afterwards fails too, and hides the reason
            raise duckdb.FatalException("the database has been invalidated")
    except duckdb.FatalException as hidden:
        assert failure_of(hidden).status == 3
        assert "the disk is full" in failure_of(hidden).line
        assert not failure_of(hidden).traceback


def test_a_disk_that_is_full_when_the_file_is_opened_is_no_wrong_usage() -> None:
    wrong = UsageError("cannot be opened as a DuckDB file")
    wrong.__cause__ = duckdb.IOException("IO Error: Cannot open: No space left on device")
    assert failure_of(wrong).status == 3


# SIGTERM.


@pytest.mark.parametrize(
    "number,status,word", [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_ends_a_run_with_its_own_status_and_line(
    monkeypatch, capsys, number: int, status: int, word: str
) -> None:
    def wrapped() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise RuntimeError("KeyboardInterrupt [while running 'ReadRange']") from error

    before = [signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM)]
    assert ends_with(monkeypatch, wrapped) == status
    assert capsys.readouterr().err == (
        f"{word}: nothing is half done; the next run goes on from the last committed position\n"
    )
    assert [signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM)] == before


def test_more_signals_while_the_end_is_said_change_nothing(monkeypatch, capsys) -> None:
    said = cli.say_end

    def interrupted_again(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        said(*arguments)

    monkeypatch.setattr(cli, "say_end", interrupted_again)
    assert ends_with(monkeypatch, lambda: signal.raise_signal(signal.SIGTERM)) == 143
    assert capsys.readouterr().err.count("terminated: ") == 1


def test_a_signal_while_a_refusal_is_said(monkeypatch, capsys) -> None:
    def interrupted(_error: Exception) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(cli, "failure_of", interrupted)
    assert ends_with(monkeypatch, raising(GuaranteeError("offset 7 is gone"))) == 143
    assert capsys.readouterr().err.startswith("terminated: ")


def test_of_two_signals_sigterm_counts(monkeypatch) -> None:
    def both() -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)

    assert ends_with(monkeypatch, both) == 143


def test_a_signal_takes_effect_after_the_step_in_hand_and_more_change_nothing(
    monkeypatch, capsys
) -> None:
    done = []

    def step() -> None:
        with finish_before_interrupt():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            done.append("the step")
        done.append("the next step")

    assert ends_with(monkeypatch, step) == 143
    assert done == ["the step"]
    assert capsys.readouterr().err.startswith("terminated: ")


@pytest.mark.parametrize("number,status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_a_run_becomes_visible_waits_until_it_is(
    kafka: InMemoryKafka, path: Path, monkeypatch, number: int, status: int
) -> None:
    from pipeline.run import commit as commit_step

    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("b"))
    original = commit_step.commit_table

    def terminated(*arguments):  # type: ignore[no-untyped-def]
        monkeypatch.setattr(commit_step, "commit_table", original)
        signal.raise_signal(number)
        return original(*arguments)

    monkeypatch.setattr(commit_step, "commit_table", terminated)
    assert ends_with(monkeypatch, lambda: run(config(path, max_records_per_run=1))) == status
    assert table(path, IDS) == [("a",)]
    assert failures(path) == []
    run(config(path))
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


@pytest.mark.parametrize(
    "error,status,word",
    [(TryAgainLater("no answer"), 5, "later"), (GuaranteeError("no right"), 3, "FAILED")],
)
def test_preflight_tells_both_apart_too(
    path: Path, monkeypatch, capsys, error: GuaranteeError, status: int, word: str
) -> None:
    from pipeline import preflight

    monkeypatch.setattr(preflight, "KafkaAdmin", lambda _config: raising(error)())
    assert cli.main(["preflight", *RUN[1:], f"--destination=duckdb:{path}"]) == status
    assert capsys.readouterr().out.startswith(f"{word:<7} Kafka at 127.0.0.1:1")


def test_who_reads_the_output_may_go_away(tmp_path: Path) -> None:
    """As `| head` does: no traceback, and the shell's own status for it."""
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "pipeline", "--help"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert (done.returncode, done.stderr) == (cli.OUTPUT_CLOSED, "")
