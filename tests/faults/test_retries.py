"""What a runner may do to a run: retry a bundle, evaluate a stage twice, deliver its input in
another order, in one bundle or in many.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.run import command as run_module
from pipeline.run import prepare as prepare_step
from pipeline.run.plan import Plan
from tests.support.in_memory_kafka import MARKER, InMemoryKafka, config, payment, run, table
from tests.support.whole_runs import SENT, each_id_once, failures
from transforms.deduplicate.deduplicate_transactions import LAYOUTS
from transforms.deduplicate.sharded import DeduplicateSharded
from transforms.destinations.duckdb.in_flight import InFlight
from transforms.destinations.duckdb.reports import DuckDBReports
from transforms.model.errors import GuaranteeError
from transforms.read.read_records import ReadRange
from transforms.write.write_rows import WriteRows


def fill(kafka: InMemoryKafka) -> None:
    kafka.create("payments", 3)
    for number, transaction_id in enumerate(SENT.elements()):
        kafka.send("payments", number % 3, payment(transaction_id))
    kafka.send("payments", 0, b"broken", MARKER)


def is_right(path: Path) -> bool:
    assert failures(path) == []
    each_id_once(lambda sql: table(path, sql), SENT)
    assert table(path, "SELECT payload FROM rejected_records") == [(b"broken",)]
    return True


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_bundle_is_tried_three_times(kafka: InMemoryKafka, path: Path, layout: str) -> None:
    """FnApiRunner runs each bundle two times more, with the state rolled back and the output thrown
    away: the writes are not.
    """
    fill(kafka)
    options = PipelineOptions(["--runner=FnApiRunner", "--direct_runner_bundle_repeat=2"])
    run(config(path, dedup_layout=layout, beam_options=options))
    left_behind = table(path, "SELECT COUNT(*) FROM _write_streams WHERE state <> 'COMMITTED'")
    assert left_behind[0][0] > 0, (
        "the streams of the other attempts are there, and none was committed"
    )
    run(config(path, dedup_layout=layout))
    assert table(path, "SELECT COUNT(*) FROM _write_streams WHERE state <> 'COMMITTED'") == [(0,)]
    assert table(path, "SELECT COUNT(*) FROM _write_stream_appends") == [(0,)]
    assert is_right(path)


def twice(monkeypatch: pytest.MonkeyPatch, change: Callable[[Plan], Plan]) -> None:
    original = run_module.read_and_write

    def evaluated_twice(settings: Any, destination: Any, plan: Plan, *more: Any) -> None:
        original(settings, destination, change(plan), *more)
        original(settings, destination, plan, *more)

    monkeypatch.setattr(run_module, "read_and_write", evaluated_twice)


@pytest.mark.parametrize("first_or_second", [min, max])
def test_a_run_evaluated_twice_with_another_arrival_order_counts_once(
    kafka: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first_or_second: Callable[..., Any],
) -> None:
    """Other copies win in the other evaluation; payments of one and duplicates of the other would
    lose or double one.
    """
    fill(kafka)
    twice(monkeypatch, lambda plan: replace(plan, partitions=plan.partitions[::-1]))
    original = DuckDBReports.read

    def one_of_them(self: DuckDBReports, run_id: str) -> dict[str, list[bytes]]:
        attempts = original(self, run_id)
        assert len(attempts) == 2
        chosen = first_or_second(attempts)
        return {chosen: attempts[chosen]}

    monkeypatch.setattr(DuckDBReports, "read", one_of_them)
    run(config(path))
    assert is_right(path)


def test_reports_of_two_evaluations_never_mix(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a runner ever handed over shard 1 of one evaluation and shard 2 of another twice, the
    proof would refuse it.
    """
    fill(kafka)
    twice(monkeypatch, lambda plan: plan)
    original = DuckDBReports.read

    def mixed(self: DuckDBReports, run_id: str) -> dict[str, list[bytes]]:
        one, other = original(self, run_id).values()
        return {"mixed": [*one, other[-1]]}

    with (
        monkeypatch.context() as patch,
        pytest.raises(GuaranteeError, match="cannot prove its rows: more than one report"),
    ):
        patch.setattr(DuckDBReports, "read", mixed)
        run(config(path))
    assert table(path, "SELECT COUNT(*) FROM payment_transactions") == [(0,)]
    run(config(path))
    assert is_right(path)


@pytest.mark.parametrize(
    "dofn,method",
    [(ReadRange, "process"), (DeduplicateSharded, "process"), (WriteRows, "finish_bundle")],
)
def test_a_step_that_fails_leaves_nothing_visible_and_the_next_run_is_complete(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, dofn: type, method: str
) -> None:
    fill(kafka)
    original = getattr(dofn, method)

    def failing(self: Any, *arguments: Any, **named: Any) -> Any:
        yield from original(self, *arguments, **named)
        raise RuntimeError("the disk is full")

    with monkeypatch.context() as patch, pytest.raises(Exception, match="the disk is full"):
        failing.__signature__ = inspect.signature(original)  # type: ignore[attr-defined] # Beam reads the parameters off it
        patch.setattr(dofn, method, failing)
        run(config(path))
    assert table(path, "SELECT COUNT(*) FROM payment_transactions") == [(0,)]
    run(config(path))
    assert is_right(path)


def test_a_lost_answer_to_the_claim_is_read_back(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is in the ledger, but the process never hears of it: the next run rolls it
    forward, and nothing is read again.
    """
    fill(kafka)
    original = prepare_step.prepare

    def lost(destination: Any, record: Any) -> None:
        original(destination, record)
        raise ConnectionError("the answer got lost")

    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(prepare_step, "prepare", lost)
        run(config(path))
    assert run(config(path)) == []
    assert is_right(path)


def test_a_lost_acknowledgement_of_an_append_fails_the_run_and_the_next_one_is_complete(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(kafka)
    original = InFlight.wait

    def lost(self: InFlight) -> int:
        original(self)
        raise ConnectionError("the answer got lost")

    with monkeypatch.context() as patch, pytest.raises(Exception, match="the answer got lost"):
        patch.setattr(InFlight, "wait", lost)
        run(config(path))
    run(config(path))
    assert is_right(path)
