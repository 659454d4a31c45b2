from collections.abc import Iterator

import pytest

from tests.bigquery_stand_in import BigQueryStandIn
from tests.unit.contract_ledger import LedgerContract
from tests.unit.contract_write_streams import Contract
from transforms.destinations import bigquery_retry
from transforms.destinations.bigquery import BigQueryDestination
from transforms.destinations.bigquery_clients import close_clients
from transforms.destinations.bigquery_queries import fresh_job_id
from transforms.destinations.bigquery_settings import BigQuerySettings
from transforms.schema import load_schema
from transforms.tables import GAPS, RUNS

SCHEMA = load_schema(None)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryStandIn]:
    monkeypatch.setattr(bigquery_retry, "FIRST_DELAY_SECONDS", 0.001)
    with BigQueryStandIn("payments-test", "d") as one:
        yield one
        close_clients()
        assert one.violations == []


def settings_of(stand_in: BigQueryStandIn, **changes: object) -> BigQuerySettings:
    endpoints = {"api_endpoint": stand_in.rest_endpoint, "storage_endpoint": stand_in.storage_endpoint}
    return BigQuerySettings(**{"project": "payments-test", "dataset": "d", **endpoints, **changes})


@pytest.fixture
def destination(stand_in: BigQueryStandIn) -> Iterator[BigQueryDestination]:
    with BigQueryDestination(settings_of(stand_in)) as one:
        one.create_tables(SCHEMA)
        yield one


class TestBigQuery(Contract, LedgerContract):
    @pytest.fixture
    def destination(self, destination: BigQueryDestination) -> BigQueryDestination:
        return destination

    def unknown_stream(self, destination: BigQueryDestination) -> str:
        return f"{destination.settings.table_path(GAPS)}/streams/none"

    def execute(self, destination: BigQueryDestination, sql: str) -> None:
        destination._queries.execute(sql.replace(RUNS, destination.settings.table(RUNS)), (), fresh_job_id("test"))
