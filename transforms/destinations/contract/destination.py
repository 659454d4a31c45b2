"""The contract of a destination, on one page: its parts, and what belongs to none of them.

Each part is a Protocol with a page of its own in this folder; docs/destinations.md says in which
order to write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow as pa

from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.contract.reports import ReportStore
from transforms.destinations.contract.run_ledger import RunLedger
from transforms.destinations.contract.shard_ledger import ShardLedger
from transforms.destinations.contract.stored_rows import StoredRows
from transforms.destinations.contract.tables import Tables
from transforms.destinations.contract.write_streams import WriteStreams


class Destination(Protocol):
    """Where rows go. Picklable: only what names it travels, and the copy is not open.

    `with destination:` opens it; the parts, `query` and `bytes_read` need it open. Opening nests:
    the last exit closes it. Several copies may be open in one process.
    """

    def __enter__(self) -> Destination:
        """Raises GuaranteeError or UsageError where it cannot be opened, with what to do."""

    def __exit__(self, *error: object) -> None: ...

    @property
    def name(self) -> str:
        """As `--destination` says it."""

    @property
    def streams_per_hour(self) -> int | None:
        """How many write streams may be created; None: no limit."""

    @property
    def max_record_bytes(self) -> int | None:
        """Bytes that a rejected record's own payload may take; None: any size of a Kafka record."""

    @property
    def bytes_read(self) -> int | None:
        """By the queries since it was opened; None where reading is not billed."""

    @property
    def bytes_billed(self) -> int | None:
        """Of those queries, as they are billed: each for a least number of bytes. None as above."""

    @property
    def checks(self) -> CheckQueries:
        """What `check` and the summary of a run ask: texts for `query`."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The answer of a SELECT in the destination's own SQL. parameters: values by name."""

    @property
    def tables(self) -> Tables:
        """Created, compared with the schema, looked at for rows."""

    @property
    def streams(self) -> WriteStreams:
        """Every row of every table but the ledgers goes through here."""

    @property
    def runs(self) -> RunLedger:
        """Bounded runs: the chain of their records."""

    @property
    def reports(self) -> ReportStore:
        """Bounded runs: what the workers report to the driver."""

    @property
    def shards(self) -> ShardLedger:
        """Streaming: which process may write to a shard."""

    @property
    def rows(self) -> StoredRows:
        """What is in the tables, for a cold start, a repair and a recovery."""
