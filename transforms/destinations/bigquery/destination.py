"""BigQuery as a destination: the write-stream contract on the Storage Write API, the ledger by DML,
everything else by SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.bigquery import reports as bigquery_reports
from transforms.destinations.bigquery.append_connection import Append
from transforms.destinations.bigquery.checks import bigquery_checks
from transforms.destinations.bigquery.clients import clients_of
from transforms.destinations.bigquery.limits import CREATE_STREAMS_PER_HOUR, MAX_RECORD_BYTES
from transforms.destinations.bigquery.queries import Queries
from transforms.destinations.bigquery.run_ledger import BigQueryLedger
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.destinations.bigquery.shard_ledger import BigQueryShardLedger, create_statement
from transforms.destinations.bigquery.stored_rows import BigQueryStoredRows
from transforms.destinations.bigquery.streams import BigQueryStreams
from transforms.destinations.bigquery.tables import BigQueryTables
from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER, Job, Offsets, ShardRow
from transforms.destinations.contract.write_streams import PENDING_STREAM
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.schema import PaymentSchema
from transforms.model.tables import GAPS, RUNS

_LOG = logging.getLogger(__name__)


class BigQueryDestination:
    """Picklable: only the settings travel. `with destination:` is one bundle's, or the driver's,
    own set of connections.
    """

    def __init__(self, settings: BigQuerySettings) -> None:
        self.settings = settings
        self._users = 0

    def __reduce__(self) -> tuple[type, tuple[BigQuerySettings]]:
        return (BigQueryDestination, (self.settings,))

    def __enter__(self) -> BigQueryDestination:
        """Raises GuaranteeError when there are no credentials."""
        self._users += 1
        if self._users == 1:
            clients = clients_of(self.settings)
            self._streams = BigQueryStreams(clients)
            self._queries = Queries(
                clients.rest,
                f"{self.settings.project}.{self.settings.dataset}",
                self.settings.max_bytes_billed,
            )
            self.rows = BigQueryStoredRows(self._queries.query, self.settings.table)
            self._tables = BigQueryTables(clients.rest, self._queries, self.settings)
            self._ledger = BigQueryLedger(self._queries, self.settings.table(RUNS))
            self._shard_ledger = BigQueryShardLedger(
                self._queries, self.settings.table(SHARD_LEDGER)
            )
        return self

    def __exit__(self, *error: object) -> None:
        self._users -= 1
        if self._users == 0:
            self._streams.close()
            if self._queries.jobs:
                _LOG.info(
                    "BigQuery: %d jobs read %d bytes", self._queries.jobs, self._queries.bytes_read
                )

    @property
    def name(self) -> str:
        """As `--destination` says it."""
        return f"bigquery:{self.settings.project}.{self.settings.dataset}"

    @property
    def streams_per_hour(self) -> int:
        """How many write streams may be created."""
        return CREATE_STREAMS_PER_HOUR

    @property
    def max_record_bytes(self) -> int:
        """What a rejected record's own bytes may take."""
        return MAX_RECORD_BYTES

    @property
    def bytes_read(self) -> int:
        """By the queries since this destination was opened."""
        return self._queries.bytes_read

    def create_tables(self, schema: PaymentSchema) -> None:
        """Tables and views that are missing, as the settings allow. Raises GuaranteeError where an
        existing table does not fit.
        """
        self._tables.prepare(schema)

    def preflight(self, schema: PaymentSchema) -> Iterator[tuple[str, str]]:
        """(what was looked at, what was found). Raises GuaranteeError where a run would be refused,
        or a role is missing.

        Changes no table. Whether streams may be created is tried with an empty one, which is never
        committed.
        """
        compared = self._tables.compare(schema)
        names = [shape.name for shape in compared.missing] + ([] if compared.has_ledger else [RUNS])
        found = (
            "all fit the schema"
            if not names
            else f"not there yet, the first run creates them: {', '.join(names)}"
        )
        if compared.additions:
            found += f"; --update_schema adds columns to {', '.join(compared.additions)}"
        yield f"tables in {self.name}", found
        self.query("SELECT 1 AS one")
        yield "queries", f"allowed, up to {self.settings.max_bytes_billed:,} bytes each"
        if GAPS in compared.found:
            self.finalize_stream(self.create_stream(GAPS))
            yield "write streams into the tables", "allowed"

    def has_tables(self) -> bool:
        """False where no run has written."""
        return self._tables.exists(RUNS)

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        return self._queries.query(sql, parameters or {})

    # What the tables know.

    @property
    def checks(self) -> CheckQueries:
        """What `check` asks."""
        return bigquery_checks(self.settings.table)

    def live_ids(self, watermark_us: int | None, extra_retention_us: int) -> pa.Table:
        """Cold start: `fingerprint` (10 bytes) and `bucket` of ids with a row in
        payment_transactions that this watermark has not expired.
        """
        return self.rows.live_ids(watermark_us, extra_retention_us)

    def present_offsets(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Mapping[str, NDArray[np.int64]]]:
        return self.rows.present_offsets(ranges)

    def present_gaps(
        self, ranges: Sequence[OffsetRange]
    ) -> Mapping[TopicPartition, Sequence[tuple[int, int]]]:
        return self.rows.present_gaps(ranges)

    def present_totals(
        self, ranges: Sequence[OffsetRange], amount_column: str | None, currency_column: str | None
    ) -> pa.RecordBatch:
        return self.rows.present_totals(ranges, amount_column, currency_column)

    def count_rows(self) -> int:
        return self.rows.count_rows()

    def count_in_totals(self) -> int:
        return self.rows.count_in_totals()

    def is_empty(self) -> bool:
        return self.rows.count_rows() == 0

    # Write streams: transforms/destinations/contract/write_streams.py is the contract.

    def create_stream(self, table: str, kind: str = PENDING_STREAM) -> str:
        return self._streams.create(self.settings.table_path(table), kind)

    def send(self, stream: str, offset: int, rows: pa.RecordBatch) -> Append:
        return self._streams.send(stream, offset, rows)

    def finalize_stream(self, stream: str) -> int:
        return self._streams.finalize(stream)

    def commit_streams(self, table: str, streams: list[str]) -> None:
        self._streams.commit(self.settings.table_path(table), streams)

    def discard_streams(self, keep: Collection[str]) -> int:
        """Nothing to do: BigQuery lists no streams, and forgets those that nobody finalizes or
        commits.
        """
        return 0

    # The ledger.

    def read_runs(self) -> list[RunRecord]:
        """From genesis on, in the order of the chain. Raises GuaranteeError when the chain is
        broken.
        """
        return self._ledger.read_runs()

    def claim_run(self, record: RunRecord) -> bool:
        """Follows the record's predecessor and writes the whole record, atomically. False: somebody
        else has followed it already.
        """
        return self._ledger.claim(record)

    def mark_run(self, run_id: str, status: str) -> None:
        """PREPARED -> COMMITTED or ABORTED; the same status again is success."""
        self._ledger.mark(run_id, status)

    # Streaming: transforms/destinations/contract/shard_ledger.py and
    # transforms/stream/present_rows.py are the contract.

    def create_shard_ledger(self, shards: int) -> None:
        self._tables.create_with_rows(
            SHARD_LEDGER, create_statement(self.settings.table(SHARD_LEDGER), shards)
        )
        self._shard_ledger.require_shards(shards)

    def begin_job(self, job_id: str, follows: int) -> Job:
        return self._shard_ledger.begin_job(job_id, follows)

    def read_shards(self, shards: Sequence[int]) -> list[ShardRow]:
        return self._shard_ledger.read(shards)

    def swap_shards(self, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]) -> bool:
        return self._shard_ledger.swap(job, seen, rows)

    def rows_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets], oldest_event_time_us: int | None
    ) -> pa.Table:
        return self.rows.rows_above(shards, shard_offsets, oldest_event_time_us)

    def count_above(
        self, shards: int, shard_offsets: Sequence[ShardOffsets]
    ) -> dict[tuple[int, str], int]:
        return self.rows.count_above(shards, shard_offsets)

    def first_missing(self, begins: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return self.rows.first_missing(begins)

    def highest_event_times(self, ends: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return self.rows.highest_event_times(ends)

    def totals_since(self, epoch: int, stream_offset: int) -> pa.Table:
        return self.rows.totals_since(epoch, stream_offset)

    def gaps_above(self, offsets: Offsets) -> pa.Table:
        return self.rows.gaps_above(offsets)

    def count_present(self, table: str, rows: pa.RecordBatch) -> int:
        return self.rows.count_present(table, rows)

    # Reports, until the driver has read them.

    def save_reports(self, run_id: str, attempt: str, reports: list[bytes]) -> None:
        bigquery_reports.save(self, run_id, attempt, reports)

    def read_reports(self, run_id: str) -> dict[str, list[bytes]]:
        """Attempt -> its complete set."""
        return bigquery_reports.read(self, run_id)

    def discard_reports(self, keep_run_id: str | None) -> None:
        """Nothing to do: their partitions expire."""
