"""SQL with one meaning is written once: in transforms/destinations/sql, for both destinations."""

from __future__ import annotations

from dataclasses import fields

import pytest

from transforms.destinations.bigquery.checks import bigquery_checks
from transforms.destinations.bigquery.dialect import google_sql
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.destinations.bigquery.stored_rows import BigQueryStoredRows
from transforms.destinations.bigquery.views import views as bigquery_views
from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.contract.seed import Seed
from transforms.destinations.duckdb.checks import DUCKDB_CHECKS
from transforms.destinations.duckdb.dialect import DUCKDB
from transforms.destinations.duckdb.stored_rows import DuckDBStoredRows
from transforms.destinations.duckdb.views import VIEWS
from transforms.destinations.sql.checks import check_queries
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.stored_rows import StoredRows
from transforms.destinations.sql.views import views

SETTINGS = BigQuerySettings("test-project", "payments", prefix="eu_")
GOOGLE_SQL = google_sql(SETTINGS.table)
SEED = Seed(
    table="p.d.old",
    key_column="id",
    event_time_column="at",
    time_type="TIMESTAMP",
    since_us=1,
    through_us=2,
    rows=3,
    checksum="4",
)


def texts_of(questions: CheckQueries) -> dict[str, str]:
    texts = {field.name: getattr(questions, field.name) for field in fields(questions)}
    differences = texts.pop("totals_differences")
    of_seed = {name: texts.pop(name) for name in ("unpaid_ids", "unpaid_duplicates")}
    texts["copies_of_seed"] = texts["copies_of_seed"](SEED)
    return {
        **texts,
        **{
            f"{name} {seed is None}": question(seed)
            for name, question in of_seed.items()
            for seed in (None, SEED)
        },
        **{
            f"totals_differences {columns} {in_flight}": differences(*columns, in_flight)
            for columns in (("amount", "currency"), (None, None))
            for in_flight in (False, True)
        },
    }


@pytest.mark.parametrize(
    ("questions", "dialect"),
    [(DUCKDB_CHECKS, DUCKDB), (bigquery_checks(SETTINGS.table), GOOGLE_SQL)],
)
def test_both_destinations_ask_the_same_text(questions: CheckQueries, dialect: Dialect) -> None:
    assert texts_of(questions) == texts_of(check_queries(dialect))


def test_both_destinations_have_the_same_views() -> None:
    assert bigquery_views(SETTINGS) == views(GOOGLE_SQL)
    assert [text.split(" AS ", 1)[1] for text in VIEWS.values()] == list(views(DUCKDB).values())


@pytest.mark.parametrize("destination", [DuckDBStoredRows, BigQueryStoredRows])
def test_a_destination_adds_to_the_shared_questions_its_way_to_ask_and_its_cold_start(
    destination: type[StoredRows],
) -> None:
    assert {name for name in vars(destination) if name in vars(StoredRows)} - {
        "__module__",
        "__doc__",
        "__init__",
        "__abstractmethods__",
        "_abc_impl",
        "__firstlineno__",
        "__static_attributes__",
    } == {"_ask", "live_ids"}
