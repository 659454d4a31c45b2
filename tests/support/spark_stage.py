"""A topic, a destination, and commands that bring one to the other on a real Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.demo.destination import DemoDestination
from runners.spark.cluster import SparkServers
from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.kafka_broker import KafkaBroker
from tests.support.payment_sender import PARTITIONS, Sender, now_us
from tests.support.spark_command import SparkCommand
from tests.support.stored_rows import assert_holds_exactly
from transforms.destinations.open import open_destination

Start = Callable[..., SparkCommand]


class Stage:
    """A topic, a destination, and commands that bring one to the other."""

    def __init__(self, servers: str, topic: str, sender: Sender, stored: DemoDestination) -> None:
        self.servers, self.topic = servers, topic
        self.sender = sender
        self.stored = stored

    def send(self, records: int) -> None:
        self.sender.send(records, now_us())

    def assert_exact(self) -> None:
        assert_holds_exactly(self.stored, self.sender.sent, self.servers, self.topic, PARTITIONS)


@pytest.fixture
def file_stage(kafka_broker: KafkaBroker, topic: str, sender: Sender, tmp_path: Path) -> Stage:
    """Into a DuckDB file."""
    url = f"duckdb:{tmp_path / 'payments.duckdb'}"
    stored = DemoDestination((f"--destination={url}",), open_destination(url), ())
    return Stage(kafka_broker.bootstrap_servers, topic, sender, stored)


@pytest.fixture
def bigquery_stage(
    kafka_broker: KafkaBroker, topic: str, sender: Sender, tmp_path: Path
) -> Iterator[Stage]:
    """Into a stand-in for BigQuery, whose strict mode has nothing to say."""
    with BigQueryStandIn("payments-test", "d") as stand_in:
        url = "bigquery:payments-test.d"
        endpoints = {
            "api_endpoint": stand_in.rest_endpoint,
            "storage_endpoint": stand_in.storage_endpoint,
        }
        arguments = [f"--bigquery_{name}={value}" for name, value in endpoints.items()]
        stored = DemoDestination(
            (f"--destination={url}", *arguments), open_destination(url, **endpoints), ()
        )
        yield Stage(kafka_broker.bootstrap_servers, topic, sender, stored)
        assert stand_in.violations == []


@pytest.fixture
def spark_run(tmp_path: Path) -> Iterator[Start]:
    """Makes the command of a stage; what it has started ends with the test."""
    made: list[SparkCommand] = []

    def make(
        stage: Stage, servers: SparkServers, processes: bool = False, pool: str | None = None
    ) -> SparkCommand:
        folder = tmp_path / f"commands-{len(made)}"
        where = stage.stored.arguments
        made.append(
            SparkCommand(servers, stage.servers, stage.topic, where, folder, processes, pool)
        )
        return made[-1]

    yield make
    for one in made:
        one.kill()
