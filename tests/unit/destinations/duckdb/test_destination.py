import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import msgspec
import pytest

from pipeline.options.schema_file import load_schema
from tests.unit.destinations.contract.run_ledger import LedgerContract, record
from tests.unit.destinations.contract.tables import TablesContract
from tests.unit.destinations.contract.write_streams import Contract, rows, visible
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS
from transforms.destinations.contract.write_streams import StreamNotFound
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.destinations.duckdb.tables import APPENDS, REPORTS, STREAMS
from transforms.destinations.duckdb.views import VIEWS
from transforms.destinations.open import open_destination
from transforms.model.errors import GuaranteeError, UsageError
from transforms.model.schema import PaymentSchema, SchemaField
from transforms.model.tables import DUPLICATES, GAPS, PAYMENTS, REJECTED, RUNS

SCHEMA = load_schema(None)


class TestDuckDBTables(TablesContract):
    @pytest.fixture
    def without_tables(self, tmp_path: Path) -> Iterator[DuckDBDestination]:
        with DuckDBDestination(str(tmp_path / "test.duckdb")) as destination:
            yield destination


class TestDuckDB(Contract, LedgerContract):
    def execute(self, destination: DuckDBDestination, sql: str) -> None:
        destination.session.cursor().execute(sql)


def test_pending_rows_survive_the_process_and_are_discarded_by_recovery(tmp_path: Path) -> None:
    path = str(tmp_path / "test.duckdb")
    with DuckDBDestination(path) as dying:
        dying.tables.create(SCHEMA)
        kept, left = dying.streams.create(GAPS), dying.streams.create(GAPS)
        dying.streams.send(kept, 0, rows(1)).wait()
        dying.streams.send(left, 0, rows(2)).wait()
        dying.streams.finalize(kept)
    with DuckDBDestination(path) as recovering:
        assert recovering.streams.discard(keep=[kept]) == 1
        with pytest.raises(StreamNotFound):
            recovering.streams.send(left, 1, rows(3)).wait()
        recovering.streams.commit(GAPS, [kept])
        assert visible(recovering) == [1]
        assert recovering.streams.discard(keep=[]) == 0


def test_ids_of_payments_are_not_compressed(destination: DuckDBDestination) -> None:
    found = destination.session.cursor().execute(
        "SELECT table_name, sql FROM duckdb_tables() WHERE sql ILIKE"
        " '%transaction_id VARCHAR USING COMPRESSION uncompressed%'"
    )
    assert {table for table, _ in found.fetchall()} == {PAYMENTS, DUPLICATES, REJECTED}


def test_reports_are_discarded_by_recovery(destination: DuckDBDestination) -> None:
    destination.reports.save("run-1", "a", [b"3"])
    destination.reports.discard(None)
    assert destination.reports.read("run-1") == {}


def test_a_claim_that_cannot_be_written_is_no_race_that_was_lost(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with DuckDBDestination(str(tmp_path / "test.duckdb")) as destination:
        destination.tables.create(SCHEMA)
        assert destination.runs.claim(record(GENESIS, None, COMMITTED))
        big = record("run-1", GENESIS, COMMITTED)
        big = msgspec.structs.replace(big, settings={"padding": "x" * 3_000_000})
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, before[1]))
            with pytest.raises(duckdb.TransactionException, match="File too large"):
                destination.runs.claim(big)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [each.run_id for each in destination.runs.read()] == [GENESIS]
        assert destination.runs.claim(record("run-1", GENESIS, COMMITTED))


def test_the_schema_may_gain_nullable_columns_and_nothing_else(
    destination: DuckDBDestination,
) -> None:
    def with_column(
        schema: PaymentSchema, name: str, kind: str, mode: str = "NULLABLE"
    ) -> PaymentSchema:
        return replace(schema, fields=(*schema.fields, SchemaField(name, name, kind, mode)))

    more = with_column(SCHEMA, "channel", "STRING")
    destination.tables.create(more)
    destination.tables.create(more)
    destination.tables.create(SCHEMA)  # the ledger says whether the column is binding
    columns = destination.query("DESCRIBE payment_transactions").column("column_name")
    assert "channel" in columns.to_pylist()
    with pytest.raises(GuaranteeError, match="no column risk"):
        destination.tables.create(with_column(more, "risk", "INT64", "REQUIRED"))
    with pytest.raises(
        GuaranteeError, match="column channel is VARCHAR, but the schema says BIGINT"
    ):
        destination.tables.create(with_column(SCHEMA, "channel", "INT64"))


@pytest.mark.parametrize(
    "change",
    [
        *(f"DROP TABLE {table}" for table in (PAYMENTS, GAPS, RUNS, STREAMS, APPENDS, REPORTS)),
        f"ALTER TABLE {REJECTED} DROP COLUMN payload",
        *(f"DROP VIEW {view}" for view in VIEWS),
    ],
)
def test_what_another_process_takes_away_is_created_again(
    change: str, destination: DuckDBDestination
) -> None:
    destination.tables.create(SCHEMA)
    before = destination.tables._existing()
    destination.session.cursor().execute(change)
    destination.tables.create(SCHEMA)
    after = destination.tables._existing()
    assert {name: set(columns.items()) for name, columns in after.items()} == {
        name: set(columns.items()) for name, columns in before.items()
    }


def test_a_column_whose_type_another_process_changes_is_refused(
    destination: DuckDBDestination,
) -> None:
    destination.tables.create(SCHEMA)
    destination.session.cursor().execute(f"ALTER TABLE {DUPLICATES} ALTER amount TYPE DOUBLE")
    with pytest.raises(GuaranteeError, match="column amount is DOUBLE"):
        destination.tables.create(SCHEMA)


@pytest.mark.parametrize("url", ["duckdb:", "payments.duckdb", "sqlite:a.db", ""])
def test_what_is_no_destination_is_wrong_usage(url: str) -> None:
    with pytest.raises(UsageError, match="allowed are duckdb:PATH"):
        open_destination(url)
