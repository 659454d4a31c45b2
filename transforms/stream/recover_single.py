"""Step 1 for the shards that write one table each: `control_totals` and `offset_gaps`.

They have no ids, so there is no (d).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job, Progress
from transforms.stream.claim import claim, close, finalize_older
from transforms.stream.polling import Polling


@dataclass(frozen=True)
class TakenOver:
    """A shard of one table that this process may write to.

    progress: under the new epoch, nothing appended yet. present: the rows that the state does not
    know, or has not passed.
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
    *,
    passed_at_once: bool = False,
) -> TakenOver:
    """Claims the shard, finalizes its older streams and looks for its present rows.

    progress: of the state, None without one. look: the rows of `table` behind a progress.
    passed_at_once: whether the new state accounts for the present rows from its beginning; else
    they lie above its offsets, and the caller counts them as they are passed. Raises Superseded or
    GuaranteeError.
    """
    (row,) = claim(destination, job, [shard])
    (claimed,) = finalize_older(destination, [row], [progress or row.base])

    def find() -> tuple[pa.Table, list[str]]:
        rows = look(claimed.begin)
        return rows, claimed.missing({table: rows.num_rows})

    present = polling.until_complete(find)
    found = {table: present.num_rows}
    claimed.require_no_surplus(destination.shards, found)
    begin = claimed.new_progress(found, {} if passed_at_once else found)
    close(destination, job, [claimed], [row.close(begin.counted, latest=begin)])
    return TakenOver(begin, claimed.streams[table], present)
