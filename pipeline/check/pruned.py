"""What a prune has left: exactly the rows that its record names, and gaps in the place of others.

Behind the border every run is judged as ever. Before it a coordinate is a row that was kept, or
lies in a gap; the record has the number and the hash of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.check.result import NOTED, CheckResult
from pipeline.counted import counted
from pipeline.run.commit import COMMIT_WITHIN_SECONDS
from transforms.destinations.contract.pruned import PRUNED, PrunedPartition, last_pruned
from transforms.destinations.contract.run_ledger import PREPARED, PREPARED_AT, RunRecord
from transforms.model.coordinates import HASH_MASK, coordinate_sum
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.moments import moment_in_words


def refuse_while_pruning(newest: Sequence[RunRecord], now_us: int | None) -> None:
    """Raises TryAgainLater while rows are being removed, GuaranteeError where that has ended half
    way: until it is finished, nothing can be said of the tables.

    newest: the last record of the chain, or none. now_us: microseconds since 1970; None: not told.
    """
    for run in newest:
        if run.status != PREPARED or PRUNED not in run.settings:
            continue
        since = int(str(run.settings[PREPARED_AT]))
        if now_us is None or now_us - since <= COMMIT_WITHIN_SECONDS * 1_000_000:
            raise TryAgainLater(
                f"prune {run.run_id} is removing rows, or has died; `run` and `prune` finish it."
                " Check again after it."
            )
        raise GuaranteeError(
            f"prune {run.run_id} is not finished since {moment_in_words(since)}, so it has died."
            " `run` and `prune` finish it; check again after it."
        )


def pruned_tables(runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """What was pruned. runs: the chain; nothing where nothing was."""
    pruned = last_pruned(reversed(runs))
    if pruned is not None:
        yield CheckResult(
            "pruned tables",
            NOTED,
            f"the tables begin behind run {pruned.border}; before it"
            f" {counted(pruned.kept, 'row is', 'rows are')} left, of ids that have a later copy",
        )


def pruned_range_problem(
    part: PrunedPartition, offsets: NDArray[np.int64], gap_offsets: int
) -> str | None:
    """How the tables differ below the border from what the record says; None: not at all.

    offsets: of the rows below it, sorted. gap_offsets: how many offsets lie in gaps below it.
    """
    kept = sum(int(table.kept_hash, 16) for table in part.tables) & HASH_MASK
    if (part.kept, kept) != (len(offsets), coordinate_sum(part.topic, part.partition, offsets)):
        return f"{len(offsets)} rows are left below the border, and {part.kept} were kept"
    if gap_offsets != part.gap_offsets:
        return f"{gap_offsets} offsets lie in gaps below the border, not {part.gap_offsets}"
    return None
