"""A prune that dies anywhere is not begun, or is finished by whoever comes next."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from pipeline.run import commit as commit_step
from tests.bigquery_stand_in import BigQueryStandIn, ManualClock
from tests.faults.dying import ProcessDied
from tests.support.bigquery import bigquery, settings_of
from tests.support.in_memory_kafka import HOUR_US, MINUTE_US, NOW_US, InMemoryKafka, payment
from tests.support.pruned import DAY_US, Kept, Row, expected
from tests.support.streaming.faults import Killed
from tests.support.streaming.hand_over import DyingDestination
from tests.unit.prune.conftest import Fresh
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.contract.pruned import PRUNED, Pruned, pruned_of
from transforms.destinations.contract.run_ledger import ABORTED, COMMITTED, PREPARED, RunRecord
from transforms.destinations.sql.pruning import SqlPruning
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.tables import GAPS, TOTALS

STATEMENTS_BEFORE = 5
"""Statements that show that rows can be removed, before the prune is claimed."""


def newest_prune(kept: Kept) -> RunRecord | None:
    return next((run for run in kept.real.runs.read()[::-1] if PRUNED in run.settings), None)


def border_of(kept: Kept) -> Pruned:
    record = newest_prune(kept)
    found = None if record is None else pruned_of(record)
    assert found is not None
    return found


def one_more_run(kept: Kept) -> None:
    kept.now_us += HOUR_US // 2
    kept.send(1, payment("new", kept.now_us))
    kept.run()


def prune_again(kept: Kept) -> None:
    kept.prune(kept.now_us - DAY_US)


def comes_to_its_end(kept: Kept, before: set[Row], goes_on: Callable[[Kept], object]) -> None:
    """Whoever comes next finds a prune that was not begun, or finishes it."""
    goes_on(kept)
    assert kept.failures() == []
    record = newest_prune(kept)
    below = {} if record is None or record.status == ABORTED else border_of(kept).below()
    assert rows_of(kept) == expected(before, below)
    prune_again(kept)
    assert kept.failures() == []
    assert rows_of(kept) == expected(before, border_of(kept).below()) < before


def rows_of(kept: Kept) -> set[Row]:
    return {row for row in kept.rows() if row[4] != "new"}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_each_change(fresh: Fresh, after: bool) -> None:
    for at in count():
        with fresh() as kept:
            before, dying = kept.rows(), DyingDestination(kept.real, at, after)
            try:
                kept.prune(kept.now_us - DAY_US, through=dying)
            except Killed:
                comes_to_its_end(kept, before, one_more_run if at % 2 else prune_again)
            else:
                break
    assert {"claim", "mark", "commit", "remove_rows", "forget_before"} <= set(dying.calls)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_each_statement(
    fresh: Fresh, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = SqlPruning._changed
    for at in count():
        calls = count()

        def dying(
            self: SqlPruning, text: str, values: Any, at: int = at, calls: Any = calls
        ) -> None:
            call = next(calls)
            if call > at or (call == at and not after):
                raise ProcessDied
            original(self, text, values)
            if call == at:
                raise ProcessDied

        with fresh() as kept:
            before = kept.rows()
            with monkeypatch.context() as patch:
                patch.setattr(SqlPruning, "_changed", dying)
                try:
                    kept.prune(kept.now_us - DAY_US)
                except ProcessDied:
                    pass
                else:
                    break
            if at >= STATEMENTS_BEFORE:
                with pytest.raises(TryAgainLater, match="is removing rows, or has died"):
                    kept.failures()
            comes_to_its_end(kept, before, prune_again if at % 2 else one_more_run)
    assert at == STATEMENTS_BEFORE + 5


@pytest.mark.parametrize("commits", range(3))
def test_streams_of_a_dead_prune_have_expired(
    file: Kept, commits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not visible of it is written again, from the rows that it has not removed yet."""
    before = file.rows()
    dies_at_commit(file, commits, monkeypatch)
    (record,) = [newest_prune(file)]
    assert record is not None and record.status == PREPARED
    assert [table.table for table in record.tables] == [GAPS, TOTALS]
    file.sql("DELETE FROM _write_streams")
    one_more_run(file)
    chain = {run.run_id: run for run in file.real.runs.read() if PRUNED in run.settings}
    statuses = [run.status for run in chain.values()]
    assert statuses == {0: [ABORTED, COMMITTED], 1: [ABORTED, COMMITTED], 2: [COMMITTED]}[commits]
    assert file.failures() == []
    comes_to_its_end(file, before, prune_again)


def test_totals_that_were_altered_meanwhile_stop_the_run(
    file: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies_at_commit(file, 1, monkeypatch)
    file.sql("DELETE FROM _write_streams")
    file.sql("UPDATE control_totals SET records = records + 1000")
    with pytest.raises(GuaranteeError, match="the tables were altered by hand"):
        one_more_run(file)


def dies_at_commit(kept: Kept, commits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prune dies when so many of its tables are committed."""
    original, calls = commit_step.commit_table, count()

    def dying(*given: Any) -> None:
        if next(calls) == commits:
            raise ProcessDied
        original(*given)

    def died(*_: Any) -> None:
        raise ProcessDied

    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(commit_step, "commit_table", dying)
        patch.setattr(SqlPruning, "remove_rows", died)
        kept.prune(kept.now_us - DAY_US)


def test_a_process_that_wakes_up_late_removes_nothing_that_is_kept(
    file: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps before it removes; another one finishes the prune, runs commit, and prune again."""
    late: list[Callable[[], None]] = []
    original = SqlPruning.remove_rows

    def sleeping(self: SqlPruning, *given: Any) -> None:
        late.append(lambda: original(self, *given))
        raise ProcessDied

    before = file.rows()
    with monkeypatch.context() as patch, pytest.raises(ProcessDied):
        patch.setattr(SqlPruning, "remove_rows", sleeping)
        file.prune(file.now_us - 2 * DAY_US)
    one_more_run(file)
    first = border_of(file).below()
    assert rows_of(file) == expected(before, first)
    # Rows in windows of which the totals went: late ones.
    file.now_us += HOUR_US
    times = [NOW_US + 7 * MINUTE_US, NOW_US + HOUR_US]
    file.send(0, *(payment("late", time) for time in times), b"broken")
    file.run()
    there = file.rows()
    late[0]()
    assert file.rows() == there
    assert file.failures() == []
    file.prune(file.now_us - DAY_US)
    there = file.rows()
    late[0]()
    assert file.rows() == there
    assert file.failures() == []


def test_rows_that_are_too_new_refuse_a_prune_before_it_begins(
    stand_in: BigQueryStandIn, kafka: InMemoryKafka
) -> None:
    with BigQueryDestination(settings_of(stand_in)) as real:
        kept = Kept(real, kafka, bigquery(stand_in), stand_in.sql)
        kafka.create("payments", 1)
        for hours in range(3):
            kept.now_us = NOW_US + hours * HOUR_US
            clock_of(stand_in).advance(hours=min(hours, 1))
            kept.send(0, payment(f"{hours}", kept.now_us))
            kept.run()
        before = kept.rows()
        with pytest.raises(TryAgainLater, match="written within the last 30 minutes"):
            kept.prune(kept.now_us)
        assert newest_prune(kept) is None and kept.rows() == before
        clock_of(stand_in).advance(minutes=31)
        kept.now_us += 31 * MINUTE_US
        kept.prune(kept.now_us)
        assert kept.rows() < before
        assert kept.failures() == []


def clock_of(stand_in: BigQueryStandIn) -> ManualClock:
    assert isinstance(stand_in.clock, ManualClock)
    return stand_in.clock
