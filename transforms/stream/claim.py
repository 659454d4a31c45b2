"""Step 1 of streaming, (a) and (b): a process claims shards, and closes the older epochs of each.

(a) Create streams for a new epoch; one atomic change of the ledger claims it and registers them.
(b) Finalize every stream of the older epochs: the service refuses any process that still writes to
    them, and their numbers of rows are known.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import (
    GAPS_SHARD,
    TOTALS_SHARD,
    Job,
    Progress,
    ShardRow,
)
from transforms.destinations.contract.write_streams import (
    COMMITTED_STREAM,
    StreamNotFound,
)
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS, ROW_TABLES, TOTALS
from transforms.stream.claimed_shard import ClaimedShard, taken_rows
from transforms.stream.errors import Superseded
from transforms.stream.in_parallel import in_parallel

_CLAIM_TRIES: Final = 5
"""Claims of several processes of one job may meet; each round at least one of them succeeds."""

_SINGLE: Final[Mapping[int, Sequence[str]]] = {TOTALS_SHARD: (TOTALS,), GAPS_SHARD: (GAPS,)}
"""Shards that write one table; every other shard writes ROW_TABLES."""


def tables_of(shard: int) -> Sequence[str]:
    """The tables that a shard writes; `shard` as in the ledger."""
    return _SINGLE.get(shard, ROW_TABLES)


def claim(
    destination: Destination, job: Job, shards: Sequence[int], *, with_streams: bool = True
) -> list[ShardRow]:
    """(a) The rows of the ledger with the new epoch as their last.

    with_streams: whether the claim registers streams into the tables of its shards. All of them are
    created before the claim, several at a time. Raises GuaranteeError when another job has begun,
    Superseded when the claims of other processes win every time.
    """
    # A job that was superseded must not create streams at each of its restarts.
    seen = destination.shards.read(shards)
    _require_stamp(job, seen)
    tables = [tables_of(shard) if with_streams else () for shard in shards]
    created = iter(
        in_parallel(
            [
                partial(destination.streams.create, table, COMMITTED_STREAM)
                for its_tables in tables
                for table in its_tables
            ]
        )
    )
    streams = [{table: next(created) for table in its_tables} for its_tables in tables]
    nonce = secrets.token_hex(16)
    for _ in range(_CLAIM_TRIES):
        _require_stamp(job, seen)
        claimed = [row.claim(nonce, named) for row, named in zip(seen, streams, strict=True)]
        if destination.shards.swap(job, seen, claimed):
            return claimed
        # The claim may have taken effect and its answer may be lost: then our nonce is there.
        seen = destination.shards.read(shards)
        if seen == claimed:
            return seen
    raise Superseded(
        f"shards {list(shards)}: {_CLAIM_TRIES} claims met claims of other processes of this job"
    )


def finalize_older(
    destination: Destination, rows: Sequence[ShardRow], begins: Sequence[Progress]
) -> list[ClaimedShard]:
    """(b) Finalizes all older epochs that are still open, and adds up what their streams took.

    From here on no other process adds a row to the shards. Several streams are finalized at a time:
    an append between two of them is one before both. begins: per row the progress from which its
    rows of the tables count. Raises GuaranteeError when the ledger does not know one of them, or
    rows are lost.
    """
    open_streams = [
        (row.shard, table, stream)
        for row in rows
        for epoch in row.older_open_epochs()
        for table, stream in epoch.streams.items()
    ]
    counts = in_parallel([partial(_finalize, destination, stream) for *_, stream in open_streams])
    counted: dict[int, dict[str, list[int | None]]] = {row.shard: {} for row in rows}
    for (shard, table, _), count in zip(open_streams, counts, strict=True):
        counted[shard].setdefault(table, []).append(count)
    return [
        ClaimedShard(row, begin, taken_rows(row, begin, counted[row.shard], tables_of(row.shard)))
        for row, begin in zip(rows, begins, strict=True)
    ]


def close(
    destination: Destination,
    job: Job,
    claimed: Sequence[ClaimedShard],
    closed: Sequence[ShardRow],
) -> None:
    """Ends the older epochs in the ledger and raises the count, so that they are not counted again.

    closed: the row of each of the `claimed` with its older epochs closed. Raises Superseded when
    another process has claimed one of them meanwhile.
    """
    shards = [shard.number for shard in claimed]
    if destination.shards.swap(job, [shard.row for shard in claimed], closed):
        return
    # The answer to a change that took effect may be lost.
    if destination.shards.read(shards) != list(closed):
        raise Superseded(f"shards {shards} were taken over during their recovery")


def _require_stamp(job: Job, rows: Sequence[ShardRow]) -> None:
    for row in rows:
        if (row.job_id, row.generation) != (job.job_id, job.generation):
            raise GuaranteeError(
                f"job {job.job_id} (generation {job.generation}) was superseded by job {row.job_id}"
                f" (generation {row.generation}) and is refused"
                " for good, so that two jobs cannot take turns. Stop it; the newer one goes on."
            )


def _finalize(destination: Destination, stream: str) -> int | None:
    """Its number of rows; None: the stream has expired, so no process can write to it any more."""
    try:
        return destination.streams.finalize(stream)
    except StreamNotFound:
        return None
