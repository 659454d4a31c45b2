"""What a job that begins prints: notes as `run` has them, and the stop marks that it lifts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.check.command import check
from pipeline.options.config import LATEST, AdoptTopic, Start
from pipeline.streaming.announce import begin_and_announce
from pipeline.streaming.begin import Begun
from tests.faults.dying import die_after
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment
from tests.support.payments import MINUTE
from tests.support.streaming.destination import DESTINATIONS
from tests.support.streaming.hand_over import Tables
from tests.support.streaming.log import TOPIC, Sent
from tests.support.streaming.runner import read_to_the_end
from transforms.destinations.contract.destination import chain_of
from transforms.destinations.contract.stop_mark import StopMark
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError

LOG = [[Sent("a", 0), Sent("b", MINUTE), Sent("c", 0)], [Sent("d", 0)]]
ADOPTING = {"adopt_topics": (AdoptTopic(TOPIC, "new"),), "on_data_loss": "accept"}


@pytest.fixture
def tables(tmp_path: Path, kafka: InMemoryKafka) -> Iterator[Tables]:
    with DESTINATIONS["duckdb"](tmp_path) as opened:
        yield Tables(opened, kafka, [list(records) for records in LOG], offered=[1, 0])


def begin(tables: Tables, *, take_over: bool = False, **changes: Any) -> Begun:
    return begin_and_announce(
        tables.config(**changes), tables.real, tables.kafka, lambda: NOW_US,  # type: ignore[arg-type]
        chain_of(tables.real), take_over=take_over,
    )  # fmt: skip


def job_with_a_mark(tables: Tables, since_us: int | None) -> Begun:
    begun = begin(tables)
    mark = StopMark(
        generation=1, shard=None, subject=f"{TOPIC}:1", reason="offsets 0 to 4 were deleted",
        token="1", since_us=since_us,
    )  # fmt: skip
    assert tables.real.shards.write_mark(mark, begun.job.job_id, None)
    return begun


def test_a_stop_mark_that_is_lifted_is_said_with_its_job_and_reason(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """As a warning: lines of level INFO are left out on a terminal."""
    begun = job_with_a_mark(tables, NOW_US)
    with caplog.at_level(logging.WARNING):
        begin(tables, take_over=True)
    assert caplog.messages == [
        f"the stop mark of job {begun.job.job_id} ({TOPIC}:1) is lifted; it was set at"
        " 2026-09-21T14:13:20Z because: offsets 0 to 4 were deleted"
    ]
    caplog.clear()
    begin(tables, take_over=True)
    assert caplog.messages == []


def test_a_mark_of_a_job_that_has_begun_since_the_chain_was_read_ends_no_command(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """The tables are claimed by then, and no job is submitted to Flink yet."""
    empty = chain_of(tables.real)
    begun = job_with_a_mark(tables, None)
    begin_and_announce(
        tables.config(), tables.real, tables.kafka, lambda: NOW_US,  # type: ignore[arg-type]
        empty, take_over=True,
    )  # fmt: skip
    assert f"the stop mark of job {begun.job.job_id} " in caplog.text


def test_a_mark_of_an_earlier_version_has_no_time(
    tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    job_with_a_mark(tables, None)
    begin(tables, take_over=True)
    assert "is lifted; it was set because: offsets" in caplog.text


def test_a_run_that_was_finished_first_is_said_also_where_the_job_is_refused(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    die_after(1, path, monkeypatch)
    kafka.topics["payments"].topic_id = "another"
    with DuckDBDestination(path) as destination, pytest.raises(GuaranteeError, match="another"):
        begin_and_announce(
            config(path), destination, kafka, lambda: NOW_US,  # type: ignore[arg-type]
            chain_of(destination),
        )  # fmt: skip
    assert "is finished now: 1 payment_transactions" in capsys.readouterr().err


def test_an_accepted_loss_is_said_once(tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    begin(tables)
    tables.offer([3, 1])
    tables.kafka.topics[TOPIC].partitions[0].deleted = 2
    begin(tables, take_over=True, on_data_loss="accept")
    printed = capsys.readouterr().err
    assert f"accepted loss: topic {TOPIC} partition 0 offsets 0 to 1" in printed
    assert "2 offsets in all" in printed


def test_a_start_that_has_no_effect_any_more_is_said(
    tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    start = Start(LATEST, given="latest")
    begin(tables, start=start)
    assert capsys.readouterr().err == ""
    begin(tables, take_over=True, start=start)
    assert "--start=latest is for the first run only: it has no effect" in capsys.readouterr().err


def test_an_adopted_topic_was_read_up_to_where_the_tables_have_it(
    tables: Tables, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job that is taken over began at 0; what it has written above is read too."""
    old = begin(tables)
    tables.offer([len(records) for records in tables.log])
    read_to_the_end(tables.attempt(old))
    tables.kafka.create(TOPIC, len(LOG), topic_id="new")
    capsys.readouterr()
    begin(tables, take_over=True, **ADOPTING)
    printed = capsys.readouterr().err
    assert "was read up to offset 3 of partition 0, 1 of partition 1;" in printed
    begin(tables, take_over=True, **ADOPTING)
    assert capsys.readouterr().err == ""


def test_check_has_the_positions_of_an_adopted_topic_from_the_stop_on(tables: Tables) -> None:
    old = begin(tables)
    tables.offer([len(records) for records in tables.log])
    read_to_the_end(tables.attempt(old))
    tables.kafka.create(TOPIC, len(LOG), topic_id="new")
    begin(tables, take_over=True, **ADOPTING)

    def note() -> tuple[str, list[int]]:
        results = {one.name: one for one in check(tables.real, None, 100.0, 400)}
        found = results["adopted topics"]
        (row,) = found.proof
        return found.figure, [part["position"] for part in row["positions"]]

    detail, positions = note()
    assert positions == [0, 0]
    assert "where the job before began" in detail
    tables.stop()
    detail, positions = note()
    assert positions == [3, 1]
    assert "where the job before began" not in detail
