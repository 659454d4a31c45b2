"""Step 1 of streaming: a process that does not hold a shard takes it over, and learns from the
tables what was written already.

(a) Create streams for a new epoch; one atomic change of the ledger claims it and registers them.
(b) Finalize every stream of the older epochs: the service refuses whoever still writes to them.
(c) Ask the tables for the shard's rows above the offsets of its state: they are present. Their
    number is known from (b).
Then the older epochs are closed in the ledger with their counts. (d), the ids of present payments,
is the caller's: stream_shard.py.

A crash anywhere leaves an epoch with empty streams, which the next recovery finalizes and counts as
0 rows.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.shard_ledger import Job, Progress, ShardRow
from transforms.destinations.contract.write_streams import COMMITTED_STREAM, StreamNotFound
from transforms.model.errors import GuaranteeError
from transforms.model.tables import ROW_TABLES
from transforms.stream.present_rows import PresentRows

_CLAIM_TRIES: Final = 5
"""Claims of several processes of one job may meet; each round at least one of them succeeds."""


class Superseded(RuntimeError):
    """Another process has taken the shard over, so this one is a zombie. The bundle fails; its
    runner decides who goes on.
    """


@dataclass(frozen=True)
class Polling:
    """How long to wait for what must appear: `tries` looks, `seconds` apart."""

    tries: int = 10
    seconds: float = 1.0
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class ShardStart:
    """What a shard knows before it is recovered.

    progress: of its state; None without state: the base in the ledger stands for it.
    oldest_event_time_us: no payment above the offsets has an earlier event time, as far as the
    state knows; None: anything is possible.
    """

    shard: int
    progress: Progress | None
    oldest_event_time_us: int | None


@dataclass(frozen=True)
class Recovered:
    """A shard that this process may write to. progress: under the new epoch, nothing appended yet.
    streams: table -> stream.
    """

    shard: int
    progress: Progress
    streams: dict[str, str]
    present: PresentRows


@dataclass(frozen=True)
class Expected:
    """Rows of one table above the offsets. exact: False when a stream had expired: then `rows` is
    the least that must be there.
    """

    rows: int
    exact: bool


def recover(
    destination: Destination,
    job: Job,
    shards: int,
    starts: Sequence[ShardStart],
    polling: Polling,
) -> list[Recovered]:
    """Takes over all shards of `starts` with one claim and one query. Raises Superseded, or
    GuaranteeError when rows are missing.
    """
    rows = claim(destination, job, [start.shard for start in starts], ROW_TABLES)
    counts = {row.shard: finalize_older(destination, row) for row in rows}
    begins = [start.progress or row.base for start, row in zip(starts, rows, strict=True)]
    expected = [
        expected_rows(row, begin, counts[row.shard], ROW_TABLES)
        for row, begin in zip(rows, begins, strict=True)
    ]
    shard_offsets = [
        ShardOffsets(row.shard, begin.offsets) for row, begin in zip(rows, begins, strict=True)
    ]
    oldest = [start.oldest_event_time_us for start in starts]
    bound = (
        None if None in oldest else min((time for time in oldest if time is not None), default=None)
    )
    present = look_until_complete(destination, shards, shard_offsets, expected, bound, polling)
    changed = []
    recovered = []
    for row, begin, found, wanted in zip(rows, begins, present, expected, strict=True):
        left = found.left(begin.offsets)
        check_not_more(destination, row, left, wanted)
        offsets = {topic: dict(partitions) for topic, partitions in begin.offsets.items()}
        progress = Progress(
            row.epochs[-1].number, row.nonce, offsets, dict.fromkeys(ROW_TABLES, 0), left
        )
        changed.append(row.close(counts[row.shard], latest=progress))
        recovered.append(Recovered(row.shard, progress, row.epochs[-1].streams, found))
    close(destination, job, rows, changed)
    return recovered


def claim(
    destination: Destination, job: Job, shards: Sequence[int], tables: Sequence[str]
) -> list[ShardRow]:
    """(a) The rows with the new epoch as their last. Raises GuaranteeError when another job has
    begun.
    """
    streams = [
        {table: destination.streams.create(table, COMMITTED_STREAM) for table in tables}
        for _ in shards
    ]
    nonce = secrets.token_hex(16)
    for _ in range(_CLAIM_TRIES):
        seen = destination.shards.read(shards)
        _require_stamp(job, seen)
        claimed = [row.claim(nonce, named) for row, named in zip(seen, streams, strict=True)]
        if destination.shards.swap(job, seen, claimed):
            return claimed
        # The answer to a claim that took effect may have been lost on the way: the nonce tells.
        if (after := destination.shards.read(shards)) == claimed:
            return after
    raise Superseded(
        f"shards {list(shards)}: {_CLAIM_TRIES} claims met claims of other processes of this job"
    )


def finalize_older(destination: Destination, row: ShardRow) -> dict[int, dict[str, int | None]]:
    """(b) Epoch -> table -> rows, of every older epoch that is still open. From here on nobody but
    us adds a row to the shard.
    """
    return {
        epoch.number: {
            table: _finalize(destination, stream) for table, stream in epoch.streams.items()
        }
        for epoch in row.older_open_epochs()
    }


def expected_rows(
    row: ShardRow,
    begin: Progress,
    counts: Mapping[int, Mapping[str, int | None]],
    tables: Sequence[str],
) -> dict[str, Expected]:
    """(c) Table -> rows above the offsets of `begin`: those left from earlier recoveries, and what
    its epoch and later ones have added.

    Raises GuaranteeError when the state belongs to another ledger, or a stream holds less than the
    state knows to be written.
    """
    if begin.epoch and (
        begin.epoch >= len(row.epochs) or row.epochs[begin.epoch - 1].nonce != begin.nonce
    ):
        raise GuaranteeError(
            f"shard {row.shard}: the checkpoint was made in epoch {begin.epoch} ({begin.nonce}),"
            " which the ledger of this destination does"
            " not know. It belongs to another destination or table prefix: restore it there."
        )
    result = {}
    for table in tables:
        rows, exact = begin.present.get(table, 0), True
        for epoch in row.epochs[max(begin.epoch - 1, 0) : -1]:
            counted = counts.get(epoch.number, epoch.rows).get(table, 0)
            before = begin.next_offsets.get(table, 0) if epoch.number == begin.epoch else 0
            if counted is None:
                exact = False
            elif counted < before:
                raise GuaranteeError(
                    f"shard {row.shard}, {table}: the stream of epoch {epoch.number} holds"
                    f" {counted} rows, but {before} were acknowledged."
                    " The destination has lost rows; `check` says which."
                )
            else:
                rows += counted - before
        result[table] = Expected(rows, exact)
    return result


def look_until_complete(
    destination: Destination,
    shards: int,
    shard_offsets: Sequence[ShardOffsets],
    expected: Sequence[Mapping[str, Expected]],
    oldest_event_time_us: int | None,
    polling: Polling,
) -> list[PresentRows]:
    """(c) The present rows per floor. Waits while fewer are visible than expected; raises
    GuaranteeError when they stay away.

    Only the first look is bounded by event time: an idle partition's watermark is no property of
    its records, so a row that another process wrote before it may lie behind the bound.
    """
    missing = ""
    for attempt in range(polling.tries):
        found = destination.rows.rows_above(
            shards, shard_offsets, None if attempt else oldest_event_time_us
        )
        by_shard = _split(found)
        present = [PresentRows(by_shard.get(one.shard, found.slice(0, 0))) for one in shard_offsets]
        missing = "; ".join(
            f"shard {one.shard}, {table}: {rows.left(one.offsets)[table]} rows of"
            f" {wanted[table].rows}"
            for one, rows, wanted in zip(shard_offsets, present, expected, strict=True)
            for table in ROW_TABLES
            if rows.left(one.offsets)[table] < wanted[table].rows
        )
        if not missing:
            return present
        if attempt and attempt + 1 < polling.tries:
            polling.sleep(polling.seconds)
    raise GuaranteeError(
        f"rows that were acknowledged are not visible after {polling.tries} looks: {missing}."
        " Nothing was written; start again."
    )


def check_not_more(
    destination: Destination,
    row: ShardRow,
    left: Mapping[str, int],
    expected: Mapping[str, Expected],
) -> None:
    """More rows than all streams have taken: written by a newer owner, or not by streaming at all."""
    surplus = {
        table: (left[table], wanted.rows)
        for table, wanted in expected.items()
        if wanted.exact and left[table] > wanted.rows
    }
    if not surplus:
        return
    if destination.shards.read([row.shard])[0].nonce != row.nonce:
        raise Superseded(f"shard {row.shard} was taken over during its recovery")
    raise GuaranteeError(
        f"shard {row.shard}: more rows than its write streams took (table: found, expected):"
        f" {surplus}. Somebody else writes to these tables,"
        " a bounded run for instance. Stop it, and start without a checkpoint."
    )


def close(
    destination: Destination, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]
) -> None:
    """Ends the older epochs in the ledger, so that nobody finalizes or counts them again."""
    if not destination.shards.swap(job, seen, rows) and destination.shards.read(
        [row.shard for row in rows]
    ) != list(rows):
        raise Superseded(
            f"shards {[row.shard for row in rows]} were taken over during their recovery"
        )


def _require_stamp(job: Job, rows: Sequence[ShardRow]) -> None:
    for row in rows:
        if (row.job_id, row.generation) != (job.job_id, job.generation):
            raise GuaranteeError(
                f"job {job.job_id} (generation {job.generation}) was superseded by job {row.job_id}"
                f" (generation {row.generation}) and is refused"
                " for good, so that two jobs cannot take turns. Stop it; the newer one goes on."
            )


def _finalize(destination: Destination, stream: str) -> int | None:
    try:
        return destination.streams.finalize(stream)
    except StreamNotFound:
        return None  # it has expired: nobody can write to it any more


def _split(found: pa.Table) -> dict[int, pa.Table]:
    shards = found.column("shard").to_numpy()
    return {
        shard: found.take(pa.array(np.flatnonzero(shards == shard)))
        for shard in np.unique(shards).tolist()
    }
