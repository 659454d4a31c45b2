"""Step 1 of streaming: a process takes over shards that it does not hold.

(a) and (b) stand in claim.py: claim a new epoch, finalize the streams of the older ones.
(c) Ask the tables for the rows above the offsets of each shard's state: they are present. Their
    number is known from (b).
Then the older epochs are closed in the ledger, which raises its count of rows. (d), the ids of
present payments, is up to the caller: shard.py.

A crash anywhere leaves an epoch with empty streams, which the next recovery finalizes and counts as
0 rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job, Progress
from transforms.stream.claim import claim, close, finalize_older
from transforms.stream.claimed_shard import ClaimedShard
from transforms.stream.polling import Polling
from transforms.stream.present_rows import PresentRows


@dataclass(frozen=True)
class ShardStart:
    """What a shard knows before it is recovered.

    progress: of its state; None: there is no state, so the base in the ledger counts.
    oldest_event_time_us: no payment above the offsets has an earlier event time, as far as the
    state knows; None: anything is possible.
    """

    shard: int
    progress: Progress | None
    oldest_event_time_us: int | None


@dataclass(frozen=True)
class Recovered:
    """A shard that this process may write to.

    progress: under the new epoch, nothing appended yet. streams: table -> stream. nonce: of the
    claim.
    """

    shard: int
    progress: Progress
    streams: dict[str, str]
    present: PresentRows
    nonce: str = ""


def recover(
    destination: Destination,
    job: Job,
    shards: int,
    starts: Sequence[ShardStart],
    polling: Polling,
) -> list[Recovered]:
    """Takes over all shards of `starts`, in their order, with one claim and one query.

    A second query is for shards whose rows no event time bounds. shards: their number in the whole
    job. Raises Superseded, or GuaranteeError when rows are
    missing.
    """
    rows = claim(destination, job, [start.shard for start in starts])
    begins = [start.progress or row.base for row, start in zip(rows, starts, strict=True)]
    claimed = finalize_older(destination, rows, begins)
    present = _look_until_complete(destination, shards, claimed, starts, polling)
    recovered, closed = [], []
    for shard in claimed:
        found = present[shard.number]
        left = found.left(shard.begin.offsets)
        shard.require_no_surplus(destination.shards, left)
        progress = shard.new_progress(left, left)
        recovered.append(Recovered(shard.number, progress, shard.streams, found, shard.row.nonce))
        closed.append(shard.row.close(progress.counted, latest=progress))
    # Only now: a shard with missing rows or a surplus keeps its epochs open, and is counted again.
    close(destination, job, claimed, closed)
    return recovered


def _look_until_complete(
    destination: Destination,
    shards: int,
    claimed: Sequence[ClaimedShard],
    starts: Sequence[ShardStart],
    polling: Polling,
) -> dict[int, PresentRows]:
    """(c) Shard -> its present rows. Waits while fewer are visible than expected.

    Raises GuaranteeError when they do not become visible.
    """

    def look(wanted: Sequence[ClaimedShard], oldest: int | None) -> dict[int, PresentRows]:
        rows = destination.rows.rows_above(shards, [shard.offsets for shard in wanted], oldest)
        return _by_shard(rows, wanted)

    # Only a first look is bounded by event time: the watermark of an idle partition says nothing
    # about its records, so a row that another process wrote before it may lie below the bound. It
    # is enough where nothing is missing; where a stream has expired, the number of rows is unknown.
    bounds = {
        start.shard: start.oldest_event_time_us
        for start, shard in zip(starts, claimed, strict=True)
        if start.oldest_event_time_us is not None and shard.is_exact
    }
    bounded = [shard for shard in claimed if shard.number in bounds]
    found = look(bounded, min(bounds.values())) if bounded else {}
    complete = {
        shard.number: found[shard.number]
        for shard in bounded
        if not _missing(shard, found[shard.number])
    }
    # Shards without a bound have a look of their own: they would drop the bound of all others.
    others = [shard for shard in claimed if shard.number not in complete]

    def look_at_all() -> tuple[dict[int, PresentRows], list[str]]:
        found = look(others, None)
        return found, [text for shard in others for text in _missing(shard, found[shard.number])]

    return complete | (polling.until_complete(look_at_all) if others else {})


def _missing(shard: ClaimedShard, found: PresentRows) -> list[str]:
    return shard.missing(found.left(shard.begin.offsets))


def _by_shard(rows: pa.Table, claimed: Sequence[ClaimedShard]) -> dict[int, PresentRows]:
    owners = rows.column("shard").to_numpy()
    return {
        shard.number: PresentRows(rows.take(pa.array(np.flatnonzero(owners == shard.number))))
        for shard in claimed
    }
