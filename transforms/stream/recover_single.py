"""Step 1 for the shards that write one table each: `control_totals` and `offset_gaps`. No ids, so
no (d).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job, Progress
from transforms.model.errors import GuaranteeError
from transforms.stream.recover import (
    Polling,
    check_not_more,
    claim,
    close,
    expected_rows,
    finalize_older,
)


@dataclass(frozen=True)
class TakenOver:
    """progress: under the new epoch, nothing appended yet. present: the rows that the state does
    not know, or has not passed.
    """

    progress: Progress
    stream: str
    present: pa.Table


def recover_single(
    destination: Destination,
    job: Job,
    shard: int,
    table: str,
    progress: Progress | None,
    look: Callable[[Progress], pa.Table],
    polling: Polling,
) -> TakenOver:
    """Claims, finalizes and looks. progress: of the state, None without one. look: the rows of
    `table` behind a progress.

    `present` of the new progress is empty: what becomes of the rows is the caller's business.
    Raises Superseded or GuaranteeError.
    """
    (row,) = claim(destination, job, [shard], (table,))
    counts = finalize_older(destination, row)
    begin = progress or row.base
    wanted = expected_rows(row, begin, counts, (table,))
    found = _look_until_complete(lambda: look(begin), wanted[table].rows, table, polling)
    check_not_more(destination, row, {table: found.num_rows}, wanted)
    offsets = {topic: dict(partitions) for topic, partitions in begin.offsets.items()}
    close(destination, job, [row], [row.close(counts)])
    return TakenOver(
        Progress(len(row.epochs), row.nonce, offsets, {table: 0}, {}),
        row.epochs[-1].streams[table],
        found,
    )


def _look_until_complete(
    look: Callable[[], pa.Table], wanted: int, table: str, polling: Polling
) -> pa.Table:
    for attempt in range(polling.tries):
        if attempt:
            polling.sleep(polling.seconds)
        found = look()
        if found.num_rows >= wanted:
            return found
    raise GuaranteeError(
        f"{table}: {found.num_rows} rows of {wanted} that were acknowledged are visible after"
        f" {polling.tries} looks. Start again."
    )
