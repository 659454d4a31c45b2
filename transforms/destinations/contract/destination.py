"""The contract of a destination: its parts, and what belongs to none of them.

Each part is a Protocol with a file of its own in this folder; docs/destinations.md says in which
order to write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from transforms.destinations.contract.checks import CheckQueries
from transforms.destinations.contract.pruning import Pruning
from transforms.destinations.contract.reports import ReportStore
from transforms.destinations.contract.run_ledger import RunLedger, RunRecord
from transforms.destinations.contract.seed import Seeds
from transforms.destinations.contract.shard_ledger import ShardLedger
from transforms.destinations.contract.snapshot import Snapshot
from transforms.destinations.contract.stored_rows import StoredRows
from transforms.destinations.contract.tables import Tables
from transforms.destinations.contract.write_streams import WriteStreams


@dataclass(frozen=True)
class SmallRun:
    """What one run of few records takes at most, however few they are.

    streams: write streams that it creates. queries: that it asks. billed_bytes: that they are
    billed at least.
    """

    streams: int
    queries: int
    billed_bytes: int


class Destination(Protocol):
    """Where rows go; a pickled copy holds only what names the destination, and is not open.

    `with destination:` opens it; the parts, `query` and `bytes_read` need it open. Opening nests:
    the last exit closes it. Several copies may be open in one process.
    """

    def __enter__(self) -> Destination:
        """Raises GuaranteeError or UsageError where it cannot be opened, with what to do."""

    def __exit__(self, *error: object) -> None: ...

    @property
    def name(self) -> str:
        """The value of `--destination` that names it."""

    @property
    def keeps_others_out(self) -> bool:
        """Whether no other process can use it while it is open in this one."""

    @property
    def streams_per_hour(self) -> int | None:
        """How many write streams may be created; None: no limit."""

    @property
    def small_run(self) -> SmallRun | None:
        """None where neither streams nor queries are counted or billed."""

    @property
    def max_record_bytes(self) -> int | None:
        """Bytes that a rejected record's own payload may take; None: any size of a Kafka record."""

    @property
    def bytes_read(self) -> int | None:
        """Bytes read by the queries since it was opened; None where reading is not billed."""

    def clock_us(self) -> int | None:
        """What the destination's own clock says, in microseconds since 1970.

        None where it has none but this machine's.
        """

    @property
    def bytes_billed(self) -> int | None:
        """Of those queries, as they are billed: each for a least number of bytes. None as above."""

    @property
    def checks(self) -> CheckQueries:
        """What `check` and the summary of a run ask: texts for `query`."""

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table:
        """The answer of a SELECT in the destination's own SQL. parameters: values by name."""

    def at_one_moment(self) -> AbstractContextManager[Snapshot]:
        """What is visible now, and stays so until the context ends. Changes nothing.

        The tables must exist. Until the end, this thread asks nothing but the snapshot.
        """

    @property
    def tables(self) -> Tables:
        """The tables and views: created, compared with the schema, checked for rows."""

    @property
    def streams(self) -> WriteStreams:
        """Write streams: every row of every table but the ledgers goes through them."""

    @property
    def runs(self) -> RunLedger:
        """The ledger of bounded runs: the chain of their records."""

    @property
    def reports(self) -> ReportStore:
        """The reports of the workers to the driver of a bounded run."""

    @property
    def shards(self) -> ShardLedger:
        """The ledger of streaming: which process may write to a shard."""

    @property
    def rows(self) -> StoredRows:
        """What is in the tables, for a cold start, a repair and a recovery."""

    @property
    def seeds(self) -> Seeds:
        """A table of ids that another job has paid."""

    @property
    def pruning(self) -> Pruning:
        """Rows that `prune` removes: the one change of rows that were written."""


def chain_of(destination: Destination) -> list[RunRecord]:
    """The tail of the chain, oldest record first; empty where the tables do not exist yet."""
    return destination.runs.tail() if destination.tables.exist() else []
