"""Steps 5 and 6 of a run: it becomes visible, table by table, and is marked COMMITTED.

The order of the tables is that of the record: COMMIT_ORDER in transforms/model/tables.py. A record
of pruning takes the same way; what it removes goes before and behind its streams
(remove_pruned.py).
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass

from pipeline.run import remove_pruned, repair
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.ownership import last_stop
from transforms.destinations.contract.pruned import pruned_of, rows_not_in_totals
from transforms.destinations.contract.run_ledger import (
    ABORTED,
    COMMITTED,
    PREPARED,
    RunRecord,
    TableProgress,
)
from transforms.destinations.contract.write_streams import StreamAlreadyCommitted, StreamNotFound
from transforms.model.errors import TryAgainLater

COMMIT_WITHIN_SECONDS = 3600.0
"""A small part of the life of a finalized stream
(https://cloud.google.com/bigquery/docs/write-api-batch).
"""


@dataclass(frozen=True)
class Moment:
    """A moment on both clocks, in seconds.

    The monotonic clock stops during suspend; the wall clock can be changed.
    """

    wall: float
    monotonic: float

    @staticmethod
    def now() -> Moment:
        return Moment(time.time(), time.monotonic())

    def must_be_recent(self, run_id: str, within_seconds: float = COMMIT_WITHIN_SECONDS) -> None:
        """Raises TryAgainLater when the moment is longer ago than that."""
        now = Moment.now()
        if max(now.wall - self.wall, now.monotonic - self.monotonic) > within_seconds:
            raise TryAgainLater(
                f"run {run_id} was claimed more than {within_seconds:.0f} s ago and is not"
                " visible as a whole yet, so this process must not go on with it. Run again: the"
                " next run finishes it."
            )


def commit(destination: Destination, record: RunRecord, since: Moment | None = None) -> str:
    """Commits and marks a PREPARED run, of this process or of a dead one; returns its status then.

    since: a moment before it was claimed, or found; None: now. No process commits later than an
    hour after it: days later another run may find the streams expired and write their rows again,
    and must not meet a process that was suspended and goes on committing.

    Where streams have expired: COMMITTED if all of it is visible all the same, ABORTED if nothing
    is, so that it is planned again; else it stays PREPARED, and only a repair can follow it.
    Raises TryAgainLater when the hour is over.
    """
    since = since or Moment.now()
    status, pruned = COMMITTED, pruned_of(record)

    def still_mine() -> None:
        since.must_be_recent(record.run_id)

    try:
        if pruned is not None:
            destination.pruning.remove_gaps_and_totals(pruned.cut(), still_mine)
        for table in record.tables:
            still_mine()
            commit_table(destination, table)
    except StreamNotFound:
        known = _status(destination, record)
        if known in (COMMITTED, ABORTED):
            # Another process has finished it, and what was kept of its streams is gone.
            return known
        if pruned is not None:
            status = PREPARED if remove_pruned.not_visible(destination, record) else COMMITTED
        else:
            runs = destination.runs.tail()
            stop = last_stop(runs)
            status = repair.status_without_streams(
                destination.rows, record, stop and stop[1], rows_not_in_totals(runs)
            )
    if status == COMMITTED and pruned is not None:
        remove_pruned.remove(destination, record, still_mine)
    if status != PREPARED:
        mark(destination, record, status)
    if status == COMMITTED:
        forget(destination, record)
    return status


def _status(destination: Destination, record: RunRecord) -> str | None:
    """As the ledger has it now, in which the record is at the end of the chain, or near it."""
    there = (run.status for run in destination.runs.backwards() if run.run_id == record.run_id)
    return next(there, None)


def commit_table(destination: Destination, table: TableProgress) -> None:
    """Step 5 for one table.

    Committed already is success, because the groups are fixed in the record. Raises StreamNotFound.
    """
    for group in table.commit_groups:
        with suppress(StreamAlreadyCommitted):
            destination.streams.commit(table.table, group)


def forget(destination: Destination, record: RunRecord) -> None:
    """Removes what is kept of the streams and reports of a COMMITTED run: nobody asks for it again.

    Where a process dies before it, the next run removes them (recover.py).
    """
    groups = [group for table in record.tables for group in table.commit_groups]
    destination.streams.forget([stream for group in groups for stream in group])
    destination.reports.forget(record.run_id)


def mark(destination: Destination, record: RunRecord, status: str) -> None:
    """Step 6: the ledger says how the run has ended."""
    destination.runs.mark(record.run_id, status)
