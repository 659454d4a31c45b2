from collections.abc import Iterator

import pytest

from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.bigquery import settings_of
from tests.unit.destinations.contract.run_ledger import LedgerContract, record
from tests.unit.destinations.contract.tables import TablesContract
from tests.unit.destinations.contract.write_streams import Contract
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.queries import fresh_job_id
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS
from transforms.model.tables import GAPS, RUNS


class TestBigQueryTables(TablesContract):
    @pytest.fixture
    def without_tables(self, stand_in: BigQueryStandIn) -> Iterator[BigQueryDestination]:
        with BigQueryDestination(settings_of(stand_in)) as destination:
            yield destination


class TestBigQuery(Contract, LedgerContract):
    def unknown_stream(self, destination: BigQueryDestination) -> str:
        return f"{destination.settings.table_path(GAPS)}/streams/none"

    def execute(self, destination: BigQueryDestination, sql: str) -> None:
        destination.queries.execute(
            sql.replace(RUNS, destination.settings.table(RUNS)), (), fresh_job_id("test")
        )


def test_jobs_run_where_the_dataset_is_and_are_found_there_again(
    stand_in: BigQueryStandIn, destination: BigQueryDestination
) -> None:
    """Outside of the US and the EU, a job is found by its id and location only."""
    seen = []
    stand_in.faults.hook("jobs.insert", lambda call: seen.append(str(call.request)), times=99)
    stand_in.faults.hook("jobs.get", lambda call: seen.append(str(call.request)), times=99)
    stand_in.faults.lose_answer("jobs.insert")
    assert destination.runs.claim(record(GENESIS, None, COMMITTED))
    assert len(seen) >= 3
    assert all("location" in request and "US" in request for request in seen), seen
