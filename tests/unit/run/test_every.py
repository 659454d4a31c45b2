"""`run --every`: run after run in one process, on a clock that only these tests move."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.interrupt import interrupts_remembered
from pipeline.options.config import RunConfig
from pipeline.options.run_config import run_config
from pipeline.run import command, kept
from pipeline.run.every import LONGEST_PAUSE_SECONDS, Since, every_command
from tests.support.in_memory_kafka import (
    NOW_US,
    InMemoryKafka,
    Partition,
    config,
    payment,
)
from tests.support.whole_runs import COPIES, failures, ids
from transforms.deduplicate import id_files
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError
from transforms.read import read_records

pytestmark = pytest.mark.usefixtures("one_topic")

INTERVAL = 10


class Ticks:
    """The clock, and what happens while the process sleeps.

    between: called with the number of the sleep, from 1; the last one ends the process as a signal
    would. slept: seconds of each sleep.
    """

    def __init__(self, last: int, between: Callable[[int], Any] = lambda _: None) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self._last = last
        self._between = between

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        self._between(len(self.slept))
        if len(self.slept) == self._last:
            raise KeyboardInterrupt

    def run(self, settings: RunConfig) -> Since:
        since = Since()
        with pytest.raises(KeyboardInterrupt):
            every_command(
                settings,
                since,
                lambda: self.now,
                self.sleep,
                lambda: NOW_US + int(self.now * 1e6),
            )
        return since


def every(path: Path, **changes: Any) -> RunConfig:
    return config(path, **{"every_us": INTERVAL * 1_000_000, "json": False, **changes})


def test_what_comes_between_the_ticks_is_paid_once(kafka: InMemoryKafka, path: Path) -> None:
    ticks = Ticks(4, lambda number: kafka.send("payments", 0, *map(payment, f"a{number}")))
    since = ticks.run(every(path))
    assert ids(path) == ["1", "2", "3", "a"]
    assert ids(path, COPIES) == ["a", "a"]
    assert since.figures() == {
        "runs": 4,
        "transactions": 3,
        "accepted": 4,
        "duplicates": 2,
        "rejected": 0,
    }
    assert ticks.slept == [INTERVAL] * 4
    assert failures(path) == []


def test_the_tables_are_asked_for_ids_once(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    rows: Any = "transforms.destinations.duckdb.stored_rows.DuckDBStoredRows.live_ids"
    original = _attribute(rows)
    monkeypatch.setattr(rows, lambda *given: asked.append(given) or original(*given))
    Ticks(5, lambda number: kafka.send("payments", 0, payment(str(number)))).run(every(path))
    assert len(asked) == 1


def test_readers_and_the_connection_are_kept_until_the_process_ends(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    closed: list[str] = []

    class Client(InMemoryKafka):
        def __init__(self, kind: str) -> None:
            super().__init__()
            self.topics, self.kind = kafka.topics, kind
            made.append(kind)

        def __exit__(self, *_: object) -> None:
            self.close()

        def close(self) -> None:
            closed.append(self.kind)

    for module in (command, kept):
        monkeypatch.setattr(module, "KafkaAdmin", lambda _config: Client("admin"), raising=False)
    monkeypatch.setattr(read_records, "PartitionReader", lambda _config: Client("reader"))

    def send(number: int) -> None:
        assert closed == []
        kafka.send("payments", 0, payment(str(number)))

    Ticks(5, send).run(every(path))
    assert sorted(made) == sorted(closed) == ["admin", "reader"]
    assert ids(path) == ["1", "2", "3", "4"]


def test_a_run_that_took_longer_than_the_interval_leaves_out_the_ticks_that_it_missed(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = Ticks(2)
    original = command.read_and_write

    def slow(*given: Any) -> None:
        ticks.now += 2.5 * INTERVAL
        original(*given)

    monkeypatch.setattr(command, "read_and_write", slow)
    kafka.send("payments", 0, payment("a"))
    ticks.run(every(path))
    assert ticks.slept == [INTERVAL / 2, INTERVAL]


def test_the_file_is_free_between_the_runs(kafka: InMemoryKafka, path: Path) -> None:
    kafka.send("payments", 0, payment("a"))
    seen: list[Any] = []

    def look(_: int) -> None:
        with duckdb.connect(str(path)) as analyst:
            seen.extend(analyst.sql("SELECT count(*) FROM payment_transactions").fetchall())

    Ticks(2, look).run(every(path))
    assert seen == [(1,), (1,)]


def test_where_nothing_is_new_the_destination_is_looked_at_once_a_minute(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[float] = []
    ticks = Ticks(9, lambda number: number == 8 and kafka.send("payments", 0, payment("b")))
    original = DuckDBDestination.__enter__

    def note(destination: DuckDBDestination) -> DuckDBDestination:
        if opened[-1:] != [ticks.now]:
            opened.append(ticks.now)
        return original(destination)

    monkeypatch.setattr(DuckDBDestination, "__enter__", note)
    kafka.send("payments", 0, payment("a"))
    assert ticks.run(every(path)).runs == 9
    assert opened == [0, 60, 80]
    assert ids(path) == ["a", "b"]


def test_a_topic_that_was_created_again_is_noticed_at_the_next_tick(
    kafka: InMemoryKafka, path: Path
) -> None:
    def create_again(_: int) -> None:
        kafka.create("payments", 1, topic_id="another")
        kafka.send("payments", 0, payment("b"))

    ticks = Ticks(3, create_again)
    kafka.send("payments", 0, payment("a"))
    with pytest.raises(GuaranteeError, match="another"):
        every_command(every(path), Since(), lambda: ticks.now, ticks.sleep, lambda: NOW_US)
    assert len(ticks.slept) == 1


def test_a_partition_that_is_added_is_read_at_the_next_tick(
    kafka: InMemoryKafka, path: Path
) -> None:
    def add(number: int) -> None:
        if number == 1:
            kafka.topics["payments"].partitions.append(Partition())
            kafka.send("payments", 1, payment("b"))

    kafka.send("payments", 0, payment("a"))
    Ticks(2, add).run(every(path))
    assert ids(path) == ["a", "b"]


def test_only_try_again_later_is_repeated_with_pauses_that_grow(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    away = [True]
    original = kafka.topic_state

    def answer(topic: str, now_us: int) -> Any:
        if away[0]:
            raise TryAgainLater("Kafka does not answer")
        return original(topic, now_us)

    monkeypatch.setattr(kafka, "topic_state", answer)
    ticks = Ticks(9, lambda number: away.__setitem__(0, number < 7))
    kafka.send("payments", 0, payment("a"))
    with caplog.at_level(logging.WARNING):
        since = ticks.run(every(path))
    assert ticks.slept[:7] == [10, 20, 40, 80, 160, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS]
    assert ticks.slept[7:] == [INTERVAL, INTERVAL]
    assert (since.runs, since.tries_in_a_row) == (2, 0)
    assert "try again later: Kafka does not answer (this process does, in 20 s)" in caplog.text
    assert ids(path) == ["a"]


def test_any_other_error_ends_the_process(kafka: InMemoryKafka, path: Path) -> None:
    ticks = Ticks(3, lambda _: kafka.topics.pop("payments"))
    with pytest.raises(GuaranteeError, match="payments: unknown"):
        every_command(every(path), Since(), lambda: ticks.now, ticks.sleep, lambda: NOW_US)
    assert len(ticks.slept) == 1


@pytest.mark.parametrize(("number", "paid"), [(signal.SIGTERM, ["a", "b"]), (signal.SIGINT, [])])
def test_sigterm_lets_the_transaction_in_hand_end_and_ctrl_c_does_not_wait(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    paid: list[str],
) -> None:
    original = command.read_and_write

    def signalled(*given: Any) -> None:
        original(*given)
        signal.raise_signal(number)

    monkeypatch.setattr(command, "read_and_write", signalled)
    kafka.send("payments", 0, *map(payment, "abcd"))
    with interrupts_remembered():
        since = Ticks(2).run(every(path, max_records_per_run=2))
    assert ids(path) == paid
    assert since.figures()["accepted"] == len(paid)


def test_json_has_an_object_for_each_run_that_has_recorded_something(
    kafka: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def send(number: int) -> None:
        if number % 2:
            kafka.send("payments", 0, payment(str(number)))

    Ticks(4, send).run(every(path, json=True))
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["accepted"], one["transactions"]) for one in printed] == [(1, 1), (1, 1)]


def test_a_line_is_said_for_each_run_that_has_recorded_something(
    kafka: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def send(number: int) -> None:
        if number % 2:
            kafka.send("payments", 0, payment(str(number)), b"broken")

    Ticks(4, send).run(every(path))
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in printed if line.endswith("Z: 1 accepted, 0 duplicates, 1 rejected")]
    assert len(lines) == 2


def test_the_sum_is_said_at_the_end_and_notes_when_they_are_new(
    kafka: InMemoryKafka, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.create("other", 1)
    kafka.send("other", 0, payment("o"))
    Ticks(1).run(every(path, topics=("payments", "other")))
    capsys.readouterr()
    Ticks(3, lambda number: kafka.send("other", 0, payment(str(number)))).run(every(path))
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in printed] == [
        "not named by --topic",
        "3 runs",
    ]
    assert printed[-1].endswith("accepted 0   duplicates 0   rejected 0")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--every=10"], "--every=10: not a duration"),
        (["--every=500ms"], "--every=500ms: at least 1s is needed"),
        (["--every=10s", "--reject_records=p:0:1"], "--every=10s with --reject_records: "),
    ],
)
def test_a_wrong_interval_is_named(flags: list[str], named: str) -> None:
    usual = ["--bootstrap_servers=k:9092", "--topic=payments", "--destination=duckdb:p.duckdb"]
    with pytest.raises(UsageError, match=named):
        run_config([*usual, *flags])


def pauses_behind_a_payment(kafka: InMemoryKafka, path: Path) -> list[float]:
    """Seconds of each sleep of a process that heeds signals; its first run finds a payment."""
    kafka.send("payments", 0, payment("a"))
    ticks = Ticks(3)
    with interrupts_remembered():
        ticks.run(every(path))
    return ticks.slept


def test_sigterm_in_a_transaction_that_is_tried_again_later_ends_the_process(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(*_: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise TryAgainLater("Kafka does not answer")

    monkeypatch.setattr(command, "read_and_write", signalled)
    assert pauses_behind_a_payment(kafka, path) == []


def test_what_was_committed_before_a_try_again_later_is_in_the_sum(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, calls = command.read_and_write, []

    def second_fails(*given: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise TryAgainLater("Kafka does not answer")
        original(*given)

    monkeypatch.setattr(command, "read_and_write", second_fails)
    kafka.send("payments", 0, *map(payment, "abcd"))
    since = Ticks(2).run(every(path, max_records_per_run=2))
    assert ids(path) == list("abcd")
    assert since.figures()["accepted"] == 4


def test_ctrl_c_that_a_callback_has_swallowed_before_a_try_again_later(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swallowed(*_: Any) -> None:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise TryAgainLater("Kafka does not answer")

    monkeypatch.setattr(command, "read_and_write", swallowed)
    assert pauses_behind_a_payment(kafka, path) == []


def test_ctrl_c_that_a_callback_has_swallowed_while_nothing_is_new(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, came = kafka.topic_state, []

    def swallowed(*given: Any) -> Any:
        if len(ticks.slept) == 1 and not came:
            came.append(1)
            with suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM)
        return original(*given)

    kafka.send("payments", 0, payment("a"))
    monkeypatch.setattr(kafka, "topic_state", swallowed)
    ticks = Ticks(5)
    with interrupts_remembered():
        ticks.run(every(path))
    assert len(ticks.slept) == 1


def test_a_file_system_of_ids_that_does_not_answer_once_is_no_wrong_usage(
    kafka: InMemoryKafka, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder was there when the process began."""
    original, calls = id_files.FileSystems.exists, []

    def exists(name: str) -> bool:
        calls.append(name)
        if name.endswith("ids") and len(calls) > 1:
            raise OSError("503 from the object store")
        return bool(original(name))

    monkeypatch.setattr(id_files.FileSystems, "exists", staticmethod(exists))
    ticks = Ticks(5, lambda number: kafka.send("payments", 0, payment(f"{number}")))
    kafka.send("payments", 0, payment("a"))
    ticks.run(every(path, state_dir=str(tmp_path / "ids")))
    assert len(ids(path)) == 5
    assert calls.count(str(tmp_path / "ids")) == 1


def _attribute(path: str) -> Any:
    module, _, name = path.rpartition(".")
    module, _, kind = module.rpartition(".")
    return getattr(getattr(__import__(module, fromlist=[kind]), kind), name)
