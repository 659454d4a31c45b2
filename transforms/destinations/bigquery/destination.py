"""BigQuery as a destination: rows by the Storage Write API, ledgers by DML, the rest by SQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from transforms.destinations.bigquery.checks import bigquery_checks
from transforms.destinations.bigquery.clients import clients_of
from transforms.destinations.bigquery.dialect import google_sql
from transforms.destinations.bigquery.limits import (
    CREATE_STREAMS_PER_HOUR,
    MAX_RECORD_BYTES,
    SMALL_RUN,
)
from transforms.destinations.bigquery.look_up import columns_of
from transforms.destinations.bigquery.queries import Queries
from transforms.destinations.bigquery.reports import BigQueryReports
from transforms.destinations.bigquery.run_ledger import BigQueryRunLedger
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.destinations.bigquery.shard_ledger import BigQueryShardLedger
from transforms.destinations.bigquery.snapshot import BigQuerySnapshot
from transforms.destinations.bigquery.stored_rows import BigQueryStoredRows
from transforms.destinations.bigquery.streams import BigQueryStreams
from transforms.destinations.bigquery.table_shapes import REPORTS
from transforms.destinations.bigquery.tables import BigQueryTables
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER
from transforms.destinations.sql.pruning import SqlPruning
from transforms.destinations.sql.seeds import SqlSeeds
from transforms.model.errors import TryAgainLater
from transforms.model.tables import RUNS


class BigQueryDestination:
    """A BigQuery dataset as a destination; see contract/destination.py.

    Only the settings are pickled. While it is open it has connections of its own: those of one
    bundle, or of the driver.
    """

    keeps_others_out = False
    streams_per_hour = CREATE_STREAMS_PER_HOUR
    small_run = SMALL_RUN
    max_record_bytes = MAX_RECORD_BYTES

    def __init__(self, settings: BigQuerySettings) -> None:
        self.settings = settings
        self.checks = bigquery_checks(settings.table)
        self._users = 0

    def __reduce__(self) -> tuple[type, tuple[BigQuerySettings]]:
        return (BigQueryDestination, (self.settings,))

    def __enter__(self) -> BigQueryDestination:
        """Opens the clients; raises GuaranteeError when there are no credentials."""
        if self._users == 0:
            self._open()
        self._users += 1
        return self

    def _open(self) -> None:
        settings, clients = self.settings, clients_of(self.settings)
        dataset = f"{settings.project}.{settings.dataset}"
        self.queries = Queries(clients.rest, dataset, settings.max_bytes_billed)
        self.streams = BigQueryStreams(clients, settings)
        self.tables = BigQueryTables(clients.rest, self.queries, self.streams, settings)
        self.runs = BigQueryRunLedger(self.queries, settings.table(RUNS))
        self.reports = BigQueryReports(self.streams, self.queries, settings.table(REPORTS))
        self.shards = BigQueryShardLedger(self.queries, self.tables, settings.table(SHARD_LEDGER))
        dialect = google_sql(settings.table)
        self.seeds = SqlSeeds(dialect, self.query, partial(columns_of, clients.rest))
        self.rows = BigQueryStoredRows(self.queries.query, settings.table, self.seeds)
        self.pruning = SqlPruning(dialect, self.query, self._change)

    def __exit__(self, *error: object) -> None:
        self._users -= 1
        if self._users == 0:
            self.streams.close()

    @property
    def name(self) -> str:
        return self.settings.url

    @property
    def bytes_read(self) -> int:
        return self.queries.bytes_read

    @property
    def bytes_billed(self) -> int:
        return self.queries.bytes_billed

    def clock_us(self) -> int:
        return self.tables.clock_us()

    @contextmanager
    def at_one_moment(self) -> Iterator[BigQuerySnapshot]:
        """By BigQuery's own clock. What was acknowledged before the question is in it."""
        yield BigQuerySnapshot(self.query, self.settings.table, self.clock_us(), self.seeds)

    def _change(self, sql: str, values: Mapping[str, Any]) -> None:
        if self.queries.change(sql, values, "prune") is None:
            raise TryAgainLater(
                f"{self.name}: other statements go on changing the tables, so that rows could not"
                " be removed. Prune again."
            )

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        return self.queries.query(sql, parameters or {})
