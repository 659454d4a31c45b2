import pytest

from transforms.destinations.bigquery.destination import BigQueryDestination


@pytest.fixture
def destination(bigquery_destination: BigQueryDestination) -> BigQueryDestination:
    return bigquery_destination
