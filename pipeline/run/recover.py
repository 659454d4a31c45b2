"""Step 1 of a run: what the runs before it have left unfinished."""

from __future__ import annotations

import logging
from typing import Final

import msgspec

from pipeline.run.commit import commit
from pipeline.run.notes import Notes
from pipeline.run.prune_record import again
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.pruned import PRUNED
from transforms.destinations.contract.run_ledger import PREPARED, RunRecord
from transforms.model.errors import TryAgainLater

_LOG = logging.getLogger(__name__)

TAKE_OVER_AFTER_US: Final = 600_000_000
"""How long after its plan a run that makes tables anew is left alone: ten times what it has for it,
so that its clock may be wrong by some minutes (begin.py).
"""


def recover(
    destination: Destination, runs: list[RunRecord], now_us: int, notes: Notes
) -> list[RunRecord]:
    """Finishes a PREPARED run, and returns the tail of the chain then.

    If its newest record is still PREPARED then, a repair must follow it (pipeline/run/repair.py):
    what is left of its streams is removed first, so that no other process can commit them. A prune
    needs no reader, so it is completed here.

    runs: the tail of the chain, empty where no run has been. now_us: the present, in microseconds.
    Raises TryAgainLater while another run may be making tables anew.
    """
    while runs and runs[-1].status == PREPARED:
        found = runs[-1]
        leave_alone_what_makes_tables(found, now_us)
        status = commit(destination, found)
        if PRUNED in found.settings:
            if status == PREPARED:
                found = again(destination, found, runs, now_us)
                status = commit(destination, found)
            _LOG.info("prune %s, which had died: %s", found.run_id, status)
        else:
            notes.add_recovered(destination, msgspec.structs.replace(found, status=status), runs)
        runs = destination.runs.tail()
        # A prune may have followed what was finished here; a run that has is alive.
        if PRUNED not in runs[-1].settings:
            break
    if runs and runs[-1].status == PREPARED:
        remove_leftovers(destination)
    return runs


def remove_leftovers(destination: Destination) -> None:
    """Removes the reports, and the streams that no run has to commit any more.

    Safe at any time: a run that is still alive notices that its streams are missing when it
    finalizes them, before it claims anything. But it must begin again then, so this comes after
    everything that may refuse the run of this process.
    """
    destination.streams.discard(keep=())
    destination.streams.forget_closed()
    destination.reports.discard(None)


def leave_alone_what_makes_tables(newest: RunRecord, now_us: int) -> None:
    """Raises TryAgainLater while the run of a PREPARED record may be dropping empty tables.

    Such a record names no table. A run that went on meanwhile could lose its rows with the tables.
    """
    if not newest.tables and now_us - newest.plan_time < TAKE_OVER_AFTER_US:
        raise TryAgainLater(
            f"run {newest.run_id} is making the empty tables anew for another --schema, or has died"
            " while it did. Nothing was changed. Run again"
            f" {TAKE_OVER_AFTER_US // 60_000_000} minutes after it."
        )
