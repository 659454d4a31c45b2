"""Fixtures for the stand-in's own tests: `stand_in` and `writer` where time and faults matter,
`service` and `table` for what BigQuery promises as well.
"""

from collections.abc import Iterator

import pytest
from google.cloud import bigquery
from google.cloud.bigquery_storage_v1 import BigQueryWriteClient

from tests.bigquery_stand_in import BigQueryStandIn, ManualClock
from tests.bigquery_stand_in.calls import create_table
from tests.bigquery_stand_in.clients import rest_client, write_client
from tests.bigquery_stand_in.service import DATASET, PROJECT, Service


@pytest.fixture
def stand_in() -> Iterator[BigQueryStandIn]:
    """One with a manual clock and the table d.t."""
    with BigQueryStandIn("p", "d", clock=ManualClock()) as running:
        create_table(running)
        yield running


@pytest.fixture
def writer(stand_in: BigQueryStandIn) -> Iterator[BigQueryWriteClient]:
    with write_client(stand_in) as client:
        yield client


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The real service where BIGQUERY_PROJECT and BIGQUERY_DATASET are set, else a stand-in."""
    if PROJECT and DATASET:
        client = bigquery.Client(
            PROJECT,
            default_query_job_config=bigquery.QueryJobConfig(
                default_dataset=f"{PROJECT}.{DATASET}"
            ),
        )
        yield Service(PROJECT, DATASET, client, BigQueryWriteClient())
        for table in client.list_tables(f"{PROJECT}.{DATASET}"):
            if table.table_id.startswith("contract_"):
                client.delete_table(table)
    else:
        with (
            BigQueryStandIn("p", "d", keep_history=True) as stand_in,
            write_client(stand_in) as writer,
        ):
            yield Service("p", "d", rest_client(stand_in), writer)
            assert stand_in.violations == []


@pytest.fixture
def table(service: Service) -> str:
    """A new table with the contract's columns, as a path of the Write API."""
    return service.create_table()
