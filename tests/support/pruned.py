"""Days of runs, to be pruned, and what must be left of them: a brute-force oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.check.command import check
from pipeline.check.result import FAILED, CheckResult
from pipeline.options.config import RunConfig
from pipeline.prune.prune import PruneResult, prune
from pipeline.run.command import run_until_caught_up
from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.bigquery import bigquery, settings_of
from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
)
from transforms.destinations.bigquery import retry as bigquery_retry
from transforms.destinations.bigquery.clients import close_clients
from transforms.destinations.bigquery.destination import BigQueryDestination
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED

DAY_US = 24 * HOUR_US
SPAN_US = 3 * DAY_US
RUNS = 6

Row = tuple[str, str, int, int, str | None]
"""Table, topic, partition, offset, transaction_id."""


class Kept:
    """A destination of a test, its Kafka and its clock; open. settings: of its runs."""

    def __init__(
        self, real: Any, kafka: InMemoryKafka, settings: RunConfig, sql: Callable[[str], Any]
    ) -> None:
        self.real, self.kafka, self.settings, self.sql = real, kafka, settings, sql
        self.now_us = NOW_US

    def run(self, through: Any = None) -> None:
        for _ in run_until_caught_up(self.settings, through or self.real, lambda: self.now_us):
            pass

    def prune(self, before_us: int, through: Any = None, dry_run: bool = False) -> PruneResult:
        return prune(through or self.real, before_us, lambda: self.now_us, dry_run)

    def failures(self) -> list[CheckResult]:
        return [one for one in check(self.real, None, 100.0, 400) if one.status == FAILED]

    def rows(self) -> set[Row]:
        return {
            (table, *row)
            for table in (PAYMENTS, DUPLICATES, REJECTED)
            for row in self.sql(
                f"SELECT kafka_topic, kafka_partition, kafka_offset, transaction_id FROM {table}"
            )
        }

    def days(self) -> None:
        """Three days with a few runs: payments, copies, broken and late ones, markers; now and then
        a run right behind another one, with copies and minutes of its payments.
        """
        self.kafka.create("payments", 2)
        for number in range(RUNS):
            self.now_us = now = NOW_US + number * SPAN_US // RUNS
            for partition in range(2):
                name = f"{number}-{partition}"
                self.send(partition, payment(name, now), payment(name, now), MARKER)
                self.send(partition, payment(f"{name}-b", now - 7 * MINUTE_US))
            if number % 3 == 0:
                self.send(0, b"broken", payment(f"{number}-1", now))
                self.send(1, payment("late", now - 30 * HOUR_US))
            self.run()
            if number in (1, 4):
                self.send(0, payment(f"{number}-0", now), payment(f"{number}-c", now))
                self.send(1, payment(f"{number}-1-b", now - 7 * MINUTE_US + 1), b"broken")
                self.run()

    def send(self, partition: int, *values: Any) -> None:
        self.kafka.send("payments", partition, *values)


def expected(before: set[Row], below: dict[tuple[str, int], int]) -> set[Row]:
    """What a prune leaves: what lies above the border, and what has a copy there."""
    above = {row for row in before if row[3] >= below.get(row[1:3], 0)}
    live = {row[4] for row in above if row[0] == DUPLICATES}
    return above | {row for row in before if row[0] != REJECTED and row[4] in live}


@contextmanager
def on_duckdb(kafka: InMemoryKafka, folder: Path) -> Iterator[Kept]:
    path = folder / "payments.duckdb"
    with DuckDBDestination(str(path)) as real:

        def sql(text: str) -> list[tuple[Any, ...]]:
            return real.session.cursor().execute(text).fetchall()

        yield Kept(real, kafka, config(path), sql)


@contextmanager
def on_bigquery(kafka: InMemoryKafka, folder: Path) -> Iterator[Kept]:
    database = str(folder / "warehouse.duckdb")
    with (
        pytest.MonkeyPatch.context() as patch,
        BigQueryStandIn(
            "payments-test", "d", database=database, dml_on_fresh_rows=True
        ) as stand_in,
    ):
        patch.setattr(bigquery_retry, "FIRST_DELAY_SECONDS", 0.001)
        # The stand-in's clock is right, and the runs are of other days.
        settings = bigquery(stand_in, max_future_skew_us=10**9 * MINUTE_US)
        with BigQueryDestination(settings_of(stand_in)) as real:
            yield Kept(real, kafka, settings, stand_in.sql)
        close_clients()
        assert stand_in.violations == []


DESTINATIONS = {"duckdb": on_duckdb, "bigquery": on_bigquery}
