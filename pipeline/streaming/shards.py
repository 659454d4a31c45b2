"""What the chain says of the streaming jobs of a destination: their ids, and how many shards.

The number of hash ranges is in the record of each BEGIN, and changes from one to the next only
where a stop lies between them.
"""

from __future__ import annotations

from collections.abc import Sequence

from transforms.destinations.contract.ownership import STOP, ownership_of, turns_of
from transforms.destinations.contract.run_ledger import RunHistory, RunRecord
from transforms.model.errors import GuaranteeError


def jobs_of(runs: Sequence[RunRecord], history: RunHistory) -> list[str]:
    """The ids of all streaming jobs of this chain that have begun, oldest first.

    runs: the chain, or its tail. history: see turns_of.
    """
    return [job_id for turn in turns_of(runs, history) for job_id in turn]


def shards_of_job(runs: Sequence[RunRecord], wanted: int, given: bool, *, from_tables: bool) -> int:
    """The number of shards of the job that follows this chain.

    runs: the chain that its claim compares. given: whether the user has named a number; else that
    of the last job goes on, and `wanted` counts for the first one. Raises GuaranteeError where the
    number changes and no stop lies between, or without from_tables.
    """
    for record in reversed(runs):
        found = ownership_of(record)
        if found is not None:
            known = int(str(record.settings["shards"]))
            if given and wanted != known:
                _check_change(found.kind, found.job_id, known, wanted, from_tables)
                return wanted
            return known
    return wanted


def _check_change(kind: str, job_id: str, known: int, wanted: int, from_tables: bool) -> None:
    if kind != STOP:
        raise GuaranteeError(
            f"--shards={wanted}: the streaming job {job_id}, which owns the tables, has {known},"
            " and what it has written is counted for each of them. Leave --shards out to go on with"
            f" {known}. Or end the job first, which closes its streams and looks for all of their"
            " rows: `payment-pipeline stop`, or `stop --lost` without its cluster; then start with"
            f" --from_tables --shards={wanted}."
        )
    if not from_tables:
        raise GuaranteeError(
            f"--shards={wanted}: the last streaming job of this destination had {known}. Leave"
            f" --shards out to go on with {known}, or add --from_tables to change it: a checkpoint"
            " from before is of no use then."
        )
