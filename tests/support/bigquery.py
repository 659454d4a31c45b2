"""A BigQuery stand-in for tests of the BigQuery destination, and what connects to it.

Tests of the stand-in itself have their own `stand_in`: tests/bigquery_stand_in/conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from pipeline.check.result import CheckResult
from pipeline.options.config import RunConfig
from pipeline.options.schema_file import load_schema
from tests.bigquery_stand_in import BigQueryStandIn, ManualClock
from tests.support.in_memory_kafka import NOW_US, config
from tests.support.whole_runs import all_of_it_once, failed_checks
from transforms.destinations.bigquery import retry as bigquery_retry
from transforms.destinations.bigquery.clients import close_clients
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.bigquery.settings import BigQuerySettings


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigQueryStandIn]:
    """Retries wait a millisecond at first; a violation of the strict mode fails the test."""
    monkeypatch.setattr(bigquery_retry, "FIRST_DELAY_SECONDS", 0.001)
    clock = clock_of_the_runs()
    with BigQueryStandIn("payments-test", "d", clock=clock, keep_history=True) as running:
        yield running
        close_clients()
        assert running.violations == []


def clock_of_the_runs() -> ManualClock:
    """Says what the clock of a run in this process says, until a test moves it."""
    return ManualClock(datetime.fromtimestamp(NOW_US / 1_000_000, timezone.utc))


@pytest.fixture
def bigquery_destination(stand_in: BigQueryStandIn) -> Iterator[BigQueryDestination]:
    """Open, with its tables, on `stand_in`."""
    with BigQueryDestination(settings_of(stand_in)) as opened:
        opened.tables.create(load_schema(None))
        yield opened


def endpoints(stand_in: BigQueryStandIn) -> dict[str, str]:
    """Where the stand-in listens, with the names of the destination's options."""
    return {
        "api_endpoint": stand_in.rest_endpoint,
        "storage_endpoint": stand_in.storage_endpoint,
    }


def settings_of(stand_in: BigQueryStandIn, **changes: Any) -> BigQuerySettings:
    """Settings of a destination on the stand-in; names as in BigQuerySettings."""
    place = {"project": stand_in.project, "dataset": stand_in.dataset}
    return BigQuerySettings(**{**place, **endpoints(stand_in), **changes})


def bigquery(stand_in: BigQueryStandIn, **changes: Any) -> RunConfig:
    """A run's configuration with the stand-in as its destination; names as in RunConfig."""
    settings = {
        "shards": 2,
        "destination": f"bigquery:{stand_in.project}.{stand_in.dataset}",
        **changes,
        "destination_options": {**endpoints(stand_in), **changes.get("destination_options", {})},
    }
    return config("", **settings)


def failures(stand_in: BigQueryStandIn) -> list[CheckResult]:
    """The checks of `check` that fail on the stand-in's tables."""
    return failed_checks(bigquery(stand_in))


def is_right(stand_in: BigQueryStandIn) -> None:
    """The tables hold what `whole_runs.fill` sends, and `check` agrees."""
    all_of_it_once(stand_in.sql)
    assert failures(stand_in) == []


def statuses(stand_in: BigQueryStandIn) -> list[str]:
    """The statuses of all runs in the ledger, sorted."""
    sql = "SELECT status FROM pipeline_runs WHERE run_id LIKE 'run-%' ORDER BY status"
    return [row[0] for row in stand_in.sql(sql)]


def forget_streams(stand_in: BigQueryStandIn) -> None:
    """Ends the lifetime of every stream that a run has named in the ledger."""
    for (tables,) in stand_in.sql("SELECT tables FROM pipeline_runs WHERE run_id LIKE 'run-%'"):
        groups = [group for table in tables for group in table["commit_groups"]]
        for stream in [stream for group in groups for stream in group["streams"]]:
            stand_in.forget_stream(stream)
