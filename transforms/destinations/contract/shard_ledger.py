"""The ledger of streaming: which write streams may hold rows of a shard, and who may open new ones.

One row per shard, created before the first job. It changes by one statement only, an UPDATE that
compares the row's nonce and job and sets the whole row, for several shards at once; the number of
affected rows says whether it happened. So the rows of a shard have one total order of
writers, the *epochs*. A process that wants to write registers fresh streams as the next epoch, then
finalizes those of all older epochs; a superseded writer finds every stream that it could register
finalized.

Two jobs never take turns. A job takes its *generation* once, before it is submitted, by
`begin_job`: a compare-and-set of the generation that it follows, which stamps job id and generation
on every row. From then on a change by any other job is refused, for good: generations only rise,
and workers carry the stamp that their job was submitted with and cannot ask for another one.
Processes of one job (restarts, a worker believed dead) share the stamp; among them the epochs
decide. The number of shards changes in that very compare-and-set, or never: the rows of all row
shards begin anew in it.

A row does not grow with the recoveries of its shard, although any checkpoint that was ever taken
may be restored: rows are counted *cumulatively*. The ledger holds how many rows the closed streams
have taken, per table, and a state how many rows of the shard it has passed; the difference is what
the tables must hold above the state's offsets.

What BigQuery makes atomic: one UPDATE ... FROM over literal rows, with its affected rows; two
mutating DML statements on one table conflict under snapshot isolation, and one of them is refused.
Plain INSERTs never conflict, so nothing here relies on one after `create`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from transforms.destinations.contract.stop_mark import StopMarks

SHARD_LEDGER: Final = "shard_ledger"

TOTALS_SHARD: Final = -1
"""The row of the shard that writes `control_totals`."""

GAPS_SHARD: Final = -2
"""The row of the shard that writes `offset_gaps`."""

Offsets = dict[str, dict[int, int]]
"""Topic -> partition -> Kafka offset."""


class Job(msgspec.Struct, frozen=True):
    """The stamp of a job on every row of the ledger.

    job_id: chosen anew for every submission. generation: the job's place in the order of all jobs
    on this destination, from 1.
    """

    job_id: str
    generation: int


class Epoch(msgspec.Struct, frozen=True, array_like=True):
    """One claim of one shard whose streams are not closed yet.

    number: of the claim, from 1. streams: table -> stream.
    """

    number: int
    streams: dict[str, str]


class Progress(msgspec.Struct, array_like=True):
    """How far a shard has come, in numbers that can be compared with the tables.

    The state of the shard and the ledger both hold it. epoch: the claim under which it came so far;
    0 before the first. ledger_id: of the ledger that was claimed, "" before the first claim.
    offsets: highest Kafka offset seen; every record of the shard at or below it is in the tables.
    next_offsets: table -> next stream offset in the streams of the epoch. present: table -> rows
    above `offsets` that recovery found and the replay has not yet passed. counted: table -> rows
    that the streams of all earlier epochs have taken, when the epoch was recovered.
    """

    epoch: int
    ledger_id: str
    offsets: Offsets
    next_offsets: dict[str, int]
    present: dict[str, int]
    counted: dict[str, int]

    def passed(self, table: str) -> int:
        """Rows of the shard at or below `offsets`, present ones included, whatever epoch wrote
        them.

        Below 0 where an adopt found more rows above its positions than streams have taken: a
        bounded run wrote them.
        """
        counted, appended, present = (
            numbers.get(table, 0) for numbers in (self.counted, self.next_offsets, self.present)
        )
        return counted + appended - present


class ShardRow(msgspec.Struct, frozen=True):
    """One row of the ledger.

    ledger_id: random; row shards get another one when their number changes. A checkpoint that names
    another one was made before that, or belongs to another destination. nonce: of the last change
    by a claim. epoch: number of the last claim. open_epochs: the claims whose streams are not
    closed, oldest first; the last one is that of the owner. closed_rows: table -> rows that the
    streams of all closed epochs have taken.
    base: what a shard without state starts from; set when a job begins without a checkpoint, and by
    nothing else: an older checkpoint may hold no state of a shard that a newer one has. latest: the
    progress of the latest recovery, from which the next adopt counts; rows below it may have been
    deleted since.
    """

    shard: int
    job_id: str
    generation: int
    ledger_id: str
    nonce: str
    epoch: int
    open_epochs: list[Epoch]
    closed_rows: dict[str, int]
    base: Progress
    latest: Progress

    def claim(self, nonce: str, streams: Mapping[str, str]) -> ShardRow:
        """The row with the next epoch."""
        epoch = Epoch(self.epoch + 1, dict(streams))
        return msgspec.structs.replace(
            self, nonce=nonce, epoch=epoch.number, open_epochs=[*self.open_epochs, epoch]
        )

    def close(
        self,
        closed_rows: Mapping[str, int],
        *,
        base: Progress | None = None,
        latest: Progress | None = None,
    ) -> ShardRow:
        """The row with all epochs but the last closed.

        closed_rows: table -> rows of all their streams, and of those closed before. One change sets
        both: a count raised before the streams are closed would be raised again by the next
        recovery. base, latest: None leaves what is there.
        """
        return msgspec.structs.replace(
            self,
            open_epochs=self.open_epochs[-1:],
            closed_rows=dict(closed_rows),
            base=base or self.base,
            latest=latest or self.latest,
        )

    def older_open_epochs(self) -> list[Epoch]:
        """Epochs before the last whose streams are not closed."""
        return self.open_epochs[:-1]


NOTHING: Final = Progress(0, "", {}, {}, {}, {})


class ShardLedger(StopMarks, Protocol):
    """The rows of all shards, and the three ways in which they change; and the stop marks."""

    def create(self, shards: int) -> None:
        """One row with epoch 0 for each of 0..shards-1, TOTALS_SHARD and GAPS_SHARD.

        They get a new ledger id. Does nothing if rows are there, of whatever number: the first job
        may not have begun, and `begin_job` makes them those of its number.
        """

    def begin_job(self, job_id: str, follows: int, shards: int) -> Job:
        """Stamps every row with `job_id` and generation `follows` + 1, in one statement.

        From here on every other job is refused, and no stop mark stands. follows: the generation
        that the rows carry (0 before the first job). shards: of the record that owns the tables;
        where the rows are those of another number, the same statement makes them those of this one:
        row shards begin anew, with what all of them had passed. The same call again is success, so
        the caller repeats it when an answer was lost. Raises GuaranteeError when the rows carry
        another generation: another job has begun; and when the number changes although a row shard
        has streams that no stop has closed.
        """

    def read(self, shards: Sequence[int]) -> list[ShardRow]:
        """The rows in the order of `shards`.

        Raises GuaranteeError when one has no row.
        """

    def read_all(self) -> list[ShardRow]:
        """All rows, in the order of their shards: GAPS_SHARD, TOTALS_SHARD, 0, 1 and so on."""

    def swap(self, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]) -> bool:
        """Sets all `rows` if the ledger is as it was seen; else none of them.

        Every row must still have the nonce of `seen` and the stamp of `job`. One atomic statement.
        False: nothing was changed by this call; the answer to an earlier one may have been lost, so
        read again.
        """
