"""Steps 5 and 6 of a run: it becomes visible, table by table, and is marked COMMITTED."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from pipeline.run import repair
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    PREPARED,
    RunRecord,
    TableProgress,
)
from transforms.destinations.contract.write_streams import StreamAlreadyCommitted, StreamNotFound
from transforms.model.errors import GuaranteeError

COMMIT_WITHIN_SECONDS = 3600.0
"""A small part of how long a finalized stream lives
(https://cloud.google.com/bigquery/docs/write-api-batch).
"""


@dataclass(frozen=True)
class Moment:
    """By both clocks: one stands still while a machine sleeps, the other one may be set. Seconds."""

    wall: float
    monotonic: float

    @staticmethod
    def now() -> Moment:
        return Moment(time.time(), time.monotonic())

    def must_be_recent(self, run_id: str) -> None:
        """Raises GuaranteeError when it is too long ago."""
        now = Moment.now()
        if max(now.wall - self.wall, now.monotonic - self.monotonic) > COMMIT_WITHIN_SECONDS:
            raise GuaranteeError(
                f"run {run_id} was claimed more than {COMMIT_WITHIN_SECONDS:.0f} s ago and is not"
                " visible as a whole yet, so this process must not go"
                " on with it. Run again: the next run finishes it."
            )


def commit(destination: Destination, record: RunRecord, since: Moment | None = None) -> str:
    """Steps 5 and 6 of a PREPARED run, by whoever finds it. Returns the status that the run has
    then.

    since: a moment before it was claimed, or found; None: now. Nobody commits later than an hour
    after it: whoever finds streams expired, days later, may write their rows again, and must not
    meet a process that has slept and goes on committing.

    Streams that have expired meanwhile: COMMITTED if all of it is visible all the same, ABORTED if
    nothing is, so that it is planned again; else it stays PREPARED, and only a repair can follow
    it.
    """
    since = since or Moment.now()
    status = COMMITTED
    try:
        for table in record.tables:
            since.must_be_recent(record.run_id)
            commit_table(destination, table)
    except StreamNotFound:
        status = repair.status_without_streams(destination.rows, record)
    if status != PREPARED:
        mark(destination, record, status)
    return status


def commit_table(destination: Destination, table: TableProgress) -> None:
    """Step 5 for one table; committed already is success, because the groups are fixed in the
    record. Raises StreamNotFound.
    """
    for group in table.commit_groups:
        with suppress(StreamAlreadyCommitted):
            destination.streams.commit(table.table, group)


def mark(destination: Destination, record: RunRecord, status: str) -> None:
    """Step 6, first half."""
    destination.runs.mark(record.run_id, status)
