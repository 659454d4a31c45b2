"""A refused run has changed nothing, and before anything is read only positions are binding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline import preflight as preflight_module
from pipeline.check.result import FAILED
from pipeline.options.config import Start
from pipeline.options.schema_file import load_schema
from pipeline.run import begin as begin_step
from pipeline.run import command as command_step
from pipeline.run import commit as commit_step
from pipeline.run import prepare as prepare_step
from pipeline.run.commit import Moment
from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.bigquery import bigquery
from tests.support.bigquery import failures as bigquery_failures
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    table,
)
from tests.support.refusals import REFUSALS
from tests.support.whole_runs import IDS, failures
from transforms.destinations.contract.run_ledger import COMMITTED, PREPARED
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.streams import DuckDBStreams
from transforms.destinations.duckdb.tables import DuckDBTables
from transforms.model.errors import GuaranteeError, UsageError
from transforms.model.schema import PaymentSchema

COLUMNS = (
    "SELECT column_name FROM duckdb_columns() WHERE table_name = 'payment_transactions'"
    " ORDER BY column_index"
)
STATUSES = "SELECT status FROM pipeline_runs ORDER BY plan_time, run_id"


def schema(tmp_path: Path, *more: dict[str, Any], event_time: str = "event_time") -> PaymentSchema:
    """The least of a payment, and these columns."""
    fields = [
        {"name": "transaction_id", "type": "STRING", "mode": "REQUIRED"},
        {"name": event_time, "type": "TIMESTAMP", "mode": "REQUIRED"},
        *more,
    ]
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(fields))
    return load_schema(str(file), event_time_field=event_time)


def grown(name: str = "note", kind: str = "STRING") -> PaymentSchema:
    """The default schema with one nullable column more."""
    before = load_schema(None)
    return replace(
        before,
        fields=(*before.fields, replace(before.fields[-1], name=name, column=name, type=kind)),
    )


def content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("why", REFUSALS)
def test_a_refused_run_with_a_grown_schema_leaves_the_file_as_it_was(
    kafka: InMemoryKafka, path: Path, why: str
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    before = content(path)
    changes = REFUSALS[why](kafka)
    with pytest.raises(GuaranteeError):
        run(config(path, schema=grown(), **changes))
    assert content(path) == before


def test_a_run_that_needs_too_many_streams_has_added_no_column(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    kafka.send("payments", 0, *(payment(f"b{number}") for number in range(9)))
    monkeypatch.setattr(DuckDBDestination, "streams_per_hour", 50)
    before = content(path)
    with pytest.raises(GuaranteeError, match="--max_records_per_run"):
        run(config(path, schema=grown(), max_records_per_run=1))
    assert content(path) == before


FIRST_REFUSALS: dict[str, Callable[[InMemoryKafka], dict[str, Any]]] = {
    name: REFUSALS[name] for name in ("unknown topic", "a coordinate that is not read")
}


@pytest.mark.parametrize("why", FIRST_REFUSALS)
def test_a_first_run_that_is_refused_leaves_no_file(
    kafka: InMemoryKafka, path: Path, why: str
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    with pytest.raises(GuaranteeError):
        run(config(path, **FIRST_REFUSALS[why](kafka)))
    assert list(path.parent.iterdir()) == []
    run(config(path))
    assert table(path, IDS) == [("a",)]


def test_a_first_run_that_needs_too_many_streams_leaves_no_file(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, *(payment(f"b{number}") for number in range(9)))
    monkeypatch.setattr(DuckDBDestination, "streams_per_hour", 50)
    with pytest.raises(GuaranteeError, match="--max_records_per_run"):
        run(config(path, max_records_per_run=1))
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("topics", [("payments",), ("none",)])
def test_preflight_leaves_no_file(
    kafka: InMemoryKafka, path: Path, topics: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "KafkaAdmin", kafka)
    kafka.create("payments", 1)
    list(preflight_module.preflight(config(path, topics=topics)))
    assert list(path.parent.iterdir()) == []


def test_preflight_leaves_a_file_as_it_was(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "KafkaAdmin", kafka)
    kafka.create("payments", 1)
    run(config(path))
    before = content(path)
    results = list(preflight_module.preflight(config(path, schema=grown())))
    assert FAILED not in [result.status for result in results]
    assert content(path) == before


def test_a_folder_that_cannot_be_written_to_is_refused_before_kafka_is_asked(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(UsageError, match="its folder cannot be written to"):
        run(config(path))


def test_a_file_that_another_run_makes_meanwhile_is_used(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    with DuckDBDestination(str(path)) as early:
        assert not early.tables.exist() and early.tables.are_empty()
        run(config(path))
        assert early.tables.exist() and not early.tables.are_empty()


# A nullable column that a refused run has added refuses nobody.


@pytest.mark.parametrize("names_it", [False, True])
def test_a_column_that_no_run_has_recorded_refuses_nobody(
    kafka: InMemoryKafka, path: Path, names_it: bool
) -> None:
    """An older version has added it before it refused."""
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    for name in ("payment_transactions", "duplicate_transactions"):
        with duckdb.connect(str(path)) as connection:
            connection.execute(f"ALTER TABLE {name} ADD COLUMN note VARCHAR")
    kafka.send("payments", 0, payment("b"))
    run(config(path, schema=grown() if names_it else load_schema(None)))
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


def test_a_run_that_found_nothing_to_read_binds_no_column(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    assert run(config(path, schema=grown())) == []
    kafka.send("payments", 0, payment("b"))
    run(config(path))
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


def test_a_column_that_must_not_be_null_is_refused(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    run(config(path))
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE payment_transactions ADD COLUMN mine VARCHAR DEFAULT 'x'")
        connection.execute("ALTER TABLE payment_transactions ALTER COLUMN mine SET NOT NULL")
    kafka.send("payments", 0, payment("b"))
    with pytest.raises(GuaranteeError, match=r"NOT NULL column\(s\) mine"):
        run(config(path))


# While nothing has been read, only positions, topic ids and the cluster are binding.


def test_a_first_run_that_stopped_can_be_made_again_with_another_schema(
    kafka: InMemoryKafka, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka.create("payments", 1)
    values = [f'{{"transaction_id":"{name}","at":"2026-01-01T00:00:00Z"}}' for name in "abc"]
    kafka.send("payments", 0, *map(str.encode, values))
    with monkeypatch.context() as patch:
        patch.setattr(command_step, "prove_and_prepare", stopped)
        with pytest.raises(GuaranteeError, match="stopped"):
            run(config(path, dedup_horizon_us=2 * HOUR_US, start=Start("earliest")))
    again = config(
        path,
        schema=schema(tmp_path, {"name": "amount", "type": "INT64"}, event_time="at"),
        dedup_horizon_us=HOUR_US,
    )
    kafka.send("payments", 0, values[0].encode())
    run(again, NOW_US + MINUTE_US)
    assert table(path, IDS) == [("a",), ("b",), ("c",)]
    assert [name for (name,) in table(path, COLUMNS)][:3] == [
        "transaction_id",
        "event_time",
        "amount",
    ]
    assert failures(path) == []
    assert run(again, NOW_US + MINUTE_US) == []
    with pytest.raises(GuaranteeError, match="--event_time_field"):
        run(config(path), NOW_US + MINUTE_US)


def stopped(*_: object) -> None:
    raise GuaranteeError("stopped")


def test_genesis_binds_positions_topic_ids_and_cluster(kafka: InMemoryKafka, path: Path) -> None:
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("before"))
    run(config(path, start=Start("latest")))
    kafka.send("payments", 0, payment("after"))
    kafka.cluster = "cluster-2"
    with pytest.raises(GuaranteeError, match="cluster-2"):
        run(config(path, schema=grown()))
    kafka.cluster = "cluster-1"
    kafka.topics["payments"].topic_id = "another"
    with pytest.raises(GuaranteeError, match="deleted and created again"):
        run(config(path, schema=grown()))
    kafka.topics["payments"].topic_id = "id of payments"
    run(config(path, schema=grown(), start=Start("earliest"), dedup_horizon_us=MINUTE_US))
    assert table(path, IDS) == [("after",)]
    assert failures(path) == []


def test_tables_with_rows_are_never_made_anew(
    kafka: InMemoryKafka, path: Path, tmp_path: Path
) -> None:
    kafka.create("payments", 1)
    run(config(path))
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            "INSERT INTO payment_transactions BY NAME SELECT 'x' AS transaction_id,"
            " now()::TIMESTAMP"
            " AS event_time, 1 AS amount, 'EUR' AS currency, 't' AS kafka_topic, 0 AS"
            " kafka_partition, 0 AS kafka_offset, now()::TIMESTAMP AS ingest_time"
        )
    with pytest.raises(GuaranteeError, match="schema"):
        run(config(path, schema=schema(tmp_path, {"name": "amount", "type": "INT64"})))
    assert table(path, IDS) == [("x",)]


def test_a_column_of_the_users_own_is_no_reason_to_make_tables_anew(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.create("payments", 1)
    run(config(path))
    with duckdb.connect(str(path)) as connection:
        connection.execute("ALTER TABLE payment_transactions ADD COLUMN mine VARCHAR")
    kafka.send("payments", 0, payment("a"))
    run(config(path))
    assert ("mine",) in table(path, COLUMNS)
    assert table(path, STATUSES) == [(COMMITTED,), (COMMITTED,)]


# Interleavings of a run that makes tables anew with another one.


@pytest.fixture
def begun(kafka: InMemoryKafka, path: Path) -> InMemoryKafka:
    """Genesis alone is in the ledger, and payments wait."""
    kafka.create("payments", 1)
    run(config(path))
    kafka.send("payments", 0, payment("a"), payment("b"))
    return kafka


@pytest.mark.parametrize("streams_survive", [False, True])
def test_a_run_that_was_planned_before_tables_are_made_anew_loses_its_claim(
    begun: InMemoryKafka,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    streams_survive: bool,
) -> None:
    """The other run comes between proof and claim of this one, and even leaves it its streams."""
    original = prepare_step.make_record

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(prepare_step, "make_record", original)
        record = original(*arguments)
        with monkeypatch.context() as patch:
            if streams_survive:
                patch.setattr(DuckDBStreams, "discard", lambda *_, **__: 0)
            patch.setattr(command_step, "run_once", stopped)
            with pytest.raises(GuaranteeError, match="stopped"):
                run(config(path, schema=grown()))
        return record

    monkeypatch.setattr(prepare_step, "make_record", overtaken)
    with pytest.raises(GuaranteeError, match="another run has followed genesis"):
        run(config(path))
    assert table(path, IDS) == []
    run(config(path, schema=grown()))
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


def test_a_run_that_claims_first_keeps_its_tables(
    begun: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one with the other schema has looked at the empty tables, and is overtaken then."""
    original = begin_step.Moment.now

    def overtaken() -> Moment:
        monkeypatch.setattr(begin_step.Moment, "now", staticmethod(original))
        run(config(path))
        return original()

    monkeypatch.setattr(begin_step.Moment, "now", staticmethod(overtaken))
    with pytest.raises(GuaranteeError, match="another run has followed genesis"):
        run(config(path, schema=grown()))
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


def test_while_tables_are_made_anew_no_other_run_begins(
    begun: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DuckDBTables.make_anew
    refused = []

    def meanwhile(self: DuckDBTables, *arguments: Any) -> None:
        for moment in (NOW_US, NOW_US + 9 * MINUTE_US):
            with pytest.raises(GuaranteeError, match="making the empty tables anew") as error:
                run(config(path), moment)
            refused.append(error)
        original(self, *arguments)

    monkeypatch.setattr(DuckDBTables, "make_anew", meanwhile)
    run(config(path, schema=grown()))
    assert len(refused) == 2
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


def test_a_process_that_was_suspended_drops_no_table_any_more(
    begun: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten minutes later another run goes on, and its rows are in the table then."""
    original = DuckDBTables.make_anew

    def suspended(self: DuckDBTables, *arguments: Any) -> None:
        monkeypatch.setattr(DuckDBTables, "make_anew", original)
        run(config(path), NOW_US + 10 * MINUTE_US)
        late = Moment.now()
        with monkeypatch.context() as patch:
            patch.setattr(
                commit_step.Moment,
                "now",
                staticmethod(lambda: Moment(late.wall + 601, late.monotonic)),
            )
            original(self, *arguments)

    monkeypatch.setattr(DuckDBTables, "make_anew", suspended)
    with pytest.raises(GuaranteeError):
        run(config(path, schema=grown()))
    assert table(path, IDS) == [("a",), ("b",)]
    assert failures(path) == []


def test_a_process_that_is_late_drops_no_table_that_is_empty_still(
    begun: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DuckDBTables.make_anew
    late = Moment.now()

    def suspended(self: DuckDBTables, *arguments: Any) -> None:
        with monkeypatch.context() as patch:
            now = staticmethod(lambda: Moment(late.wall + 661, late.monotonic))
            patch.setattr(commit_step.Moment, "now", now)
            original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBTables, "make_anew", suspended)
        with pytest.raises(GuaranteeError, match="claimed more than 60 s ago"):
            run(config(path, schema=grown()))
    assert ("note",) not in table(path, COLUMNS)
    assert table(path, STATUSES) == [(COMMITTED,), (PREPARED,)]
    run(config(path, schema=grown()), NOW_US + 10 * MINUTE_US)
    assert table(path, IDS) == [("a",), ("b",)]
    assert ("note",) in table(path, COLUMNS)
    assert failures(path) == []


def test_a_refused_run_leaves_a_living_one_its_streams(
    begun: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = prepare_step.finalize_and_prove

    def meanwhile(*arguments: Any) -> Any:
        monkeypatch.setattr(prepare_step, "finalize_and_prove", original)
        with pytest.raises(GuaranteeError, match="--topic=none"):
            run(config(path, topics=("none",)))
        return original(*arguments)

    monkeypatch.setattr(prepare_step, "finalize_and_prove", meanwhile)
    run(config(path))
    assert table(path, IDS) == [("a",), ("b",)]


def test_the_same_in_bigquery(
    kafka: InMemoryKafka, stand_in: BigQueryStandIn, tmp_path: Path
) -> None:
    kafka.create("payments", 1)
    with pytest.raises(GuaranteeError, match="--topic=none"):
        run(bigquery(stand_in, topics=("none",)))
    assert stand_in.calls["tables.insert"] == 0
    run(bigquery(stand_in))
    kafka.send("payments", 0, b'{"transaction_id":"a","at":"2026-01-01T00:00:00Z","amount":5}')
    other = schema(tmp_path, {"name": "amount", "type": "INT64"}, event_time="at")
    run(bigquery(stand_in, schema=other))
    assert stand_in.sql("SELECT transaction_id, amount FROM payment_transactions") == [("a", 5)]
    assert bigquery_failures(stand_in) == []
