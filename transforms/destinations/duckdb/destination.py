"""The embedded destination: one DuckDB file behind the write-stream contract, no stronger than that
contract.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.contract.shard_ledger import Job, Offsets, ShardRow
from transforms.destinations.contract.write_streams import PENDING_STREAM, Acknowledged
from transforms.destinations.duckdb import run_ledger as duckdb_ledger
from transforms.destinations.duckdb import shard_ledger as duckdb_shard_ledger
from transforms.destinations.duckdb import streams as duckdb_streams
from transforms.destinations.duckdb.checks import DUCKDB_CHECKS
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.destinations.duckdb.stored_rows import DuckDBStoredRows
from transforms.destinations.duckdb.tables import REPORTS, check_tables, create_tables, has_tables
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.schema import PaymentSchema
from transforms.model.tables import ROW_TABLES


class DuckDBDestination:
    """Picklable: only the path travels. `with destination:` opens the file while it is needed;
    every other call needs it open.
    """

    checks = DUCKDB_CHECKS

    def __init__(self, path: str) -> None:
        self.path = path
        self.session = DuckDBSession(path)
        self.rows = DuckDBStoredRows(self.session)

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return (DuckDBDestination, (self.path,))

    def __enter__(self) -> DuckDBDestination:
        self.session.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.session.close()

    @property
    def name(self) -> str:
        """As `--destination` says it."""
        return f"duckdb:{self.path}"

    @property
    def streams_per_hour(self) -> None:
        """Write streams are rows here: as many as anybody wants."""
        return None

    @property
    def max_record_bytes(self) -> None:
        """A value may be as large as a Kafka record."""
        return None

    @property
    def bytes_read(self) -> None:
        """Nobody is billed."""
        return None

    def create_tables(self, schema: PaymentSchema) -> None:
        """Tables and views that are missing, and new nullable columns. Raises GuaranteeError where
        an existing table differs.
        """
        create_tables(self.session.cursor(), schema.arrow_fields())

    def preflight(self, schema: PaymentSchema) -> Iterator[tuple[str, str]]:
        """(what was looked at, what was found). Raises GuaranteeError where a run would be refused.
        Changes nothing.
        """
        check_tables(self.session.cursor(), schema.arrow_fields())
        yield (
            "tables",
            "all fit the schema"
            if self.has_tables()
            else "not there yet: the first run creates them",
        )

    def has_tables(self) -> bool:
        """False for a file that no run has written to."""
        return has_tables(self.session.cursor())

    def is_empty(self) -> bool:
        """No row in any of the three tables of records."""
        return not any(
            self.session.cursor().execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
            for table in ROW_TABLES
        )

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> pa.Table:
        return self.session.query(sql, parameters)

    # Write streams: transforms/destinations/contract/write_streams.py is the contract.

    def create_stream(self, table: str, kind: str = PENDING_STREAM) -> str:
        return duckdb_streams.create(self.session.cursor(), table, kind)

    def send(self, stream: str, offset: int, rows: pa.RecordBatch) -> Acknowledged:
        encoded = duckdb_streams.EncodedRows(rows)
        return Acknowledged(
            self.session.atomically(
                lambda cursor: duckdb_streams.append(cursor, stream, offset, encoded)
            )
        )

    def finalize_stream(self, stream: str) -> int:
        return self.session.atomically(lambda cursor: duckdb_streams.finalize(cursor, stream))

    def commit_streams(self, table: str, streams: list[str]) -> None:
        self.session.atomically(lambda cursor: duckdb_streams.commit(cursor, table, streams))

    def discard_streams(self, keep: Collection[str]) -> int:
        """Removes PENDING streams that are not committed and not in `keep`, with their rows; how
        many.
        """
        return self.session.atomically(lambda cursor: duckdb_streams.discard(cursor, keep))

    # The ledger.

    def read_runs(self) -> list[RunRecord]:
        """From genesis on, in the order of the chain. Raises GuaranteeError when the chain is
        broken.
        """
        return duckdb_ledger.read_runs(self.session.cursor())

    def claim_run(self, record: RunRecord) -> bool:
        """Follows the record's predecessor and writes the whole record, atomically. False: somebody
        else has followed it already.
        """
        try:
            return self.session.atomically(lambda cursor: duckdb_ledger.claim(cursor, record))
        except (duckdb.TransactionException, duckdb.ConstraintException):
            # Two claims met: DuckDB lets one through and refuses the other when it writes or
            # commits.
            return False

    def mark_run(self, run_id: str, status: str) -> None:
        """PREPARED -> COMMITTED or ABORTED; the same status again is success."""
        self.session.atomically(lambda cursor: duckdb_ledger.mark(cursor, run_id, status))

    # Streaming: transforms/destinations/contract/shard_ledger.py and
    # transforms/stream/present_rows.py are the contract.

    def create_shard_ledger(self, shards: int) -> None:
        self.session.atomically(lambda cursor: duckdb_shard_ledger.create(cursor, shards))

    def begin_job(self, job_id: str, follows: int) -> Job:
        return self.session.atomically(
            lambda cursor: duckdb_shard_ledger.begin_job(cursor, job_id, follows)
        )

    def read_shards(self, shards: Sequence[int]) -> list[ShardRow]:
        return duckdb_shard_ledger.read(self.session.cursor(), shards)

    def swap_shards(self, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]) -> bool:
        try:
            return self.session.atomically(
                lambda cursor: duckdb_shard_ledger.swap(cursor, job, seen, rows)
            )
        except duckdb.TransactionException:
            # Two changes of one row met: DuckDB lets one through and refuses the other.
            return False

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
        self.session.cursor().execute(
            f"INSERT INTO {REPORTS} VALUES (?, ?, ?)", [run_id, attempt, reports]
        )

    def read_reports(self, run_id: str) -> dict[str, list[bytes]]:
        """Attempt -> its complete set."""
        rows = (
            self.session.cursor()
            .execute(f"SELECT attempt, reports FROM {REPORTS} WHERE run_id = ?", [run_id])
            .fetchall()
        )
        return {attempt: list(reports) for attempt, reports in rows}

    def discard_reports(self, keep_run_id: str | None) -> None:
        self.session.cursor().execute(
            f"DELETE FROM {REPORTS} WHERE run_id IS DISTINCT FROM ?", [keep_run_id]
        )

    # What the tables know.

    def live_ids(self, watermark_us: int | None, extra_retention_us: int) -> pa.Table:
        """Cold start: `fingerprint` (10 bytes) and `bucket` of ids with a row in
        payment_transactions that this watermark has not expired.

        watermark_us: microseconds, None for all ids; bucket: minute of the latest event time over
        payments and duplicates.
        """
        return self.rows.live_ids(watermark_us, extra_retention_us)

    # What a repair asks: pipeline/run/repair.py, VisibleRows.

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
