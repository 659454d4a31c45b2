"""A DuckDB file that a streaming job owns, and the Flink that runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.streaming.begin import Begun, begin_streaming
from tests.support.fake_flink import FakeFlink
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, config, payment
from transforms.destinations.duckdb.destination import DuckDBDestination


@pytest.fixture
def begun(kafka: InMemoryKafka, path: Path) -> Begun:
    """A job with 4 shards that has read nothing yet."""
    kafka.create("payments", 2)
    kafka.send("payments", 0, payment("a"))
    with DuckDBDestination(path) as destination:
        return begin_streaming(config(path), destination, kafka, lambda: NOW_US)


@pytest.fixture
def flink(begun: Begun) -> FakeFlink:
    """Runs that job."""
    double = FakeFlink()
    double.name = f"payment-pipeline-{begun.job.job_id}"
    return double
