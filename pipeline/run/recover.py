"""Step 1 of a run: what the runs before it have left unfinished."""

from __future__ import annotations

from pipeline.run.commit import commit
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_ledger import PREPARED, RunRecord


def recover(destination: Destination) -> list[RunRecord]:
    """Finishes a PREPARED run, removes what a dead run left behind, and returns the ledger's chain.

    The chain is empty where no run has been. If its newest record is still PREPARED then, a repair
    must follow it (pipeline/run/repair.py). Removing is safe: a run that is still alive notices
    that its streams are missing when it finalizes them, before it claims anything.
    """
    if not destination.tables.exist():
        return []
    runs = destination.runs.read()
    if runs and runs[-1].status == PREPARED:
        commit(destination, runs[-1])
        runs = destination.runs.read()
    destination.streams.discard(keep=())
    destination.reports.discard(None)
    return runs
