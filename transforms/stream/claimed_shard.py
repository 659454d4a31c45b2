"""Step 1 of streaming, (c): how many rows of a claimed shard the tables must hold.

Rows are counted cumulatively: the ledger counts what all streams of the shard have taken, its state
what it has passed. The difference lies above the offsets of the state: those rows are *present*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.shard_ledger import Progress, ShardLedger, ShardRow
from transforms.model.errors import GuaranteeError
from transforms.stream.errors import Superseded

Counted = Mapping[str, Sequence[int | None]]
"""Table -> rows that finalize counted in each open stream; None: the stream had expired."""


@dataclass(frozen=True)
class Taken:
    """Rows that all older streams of a shard have taken in one table.

    exact: False when a stream had expired, so that its rows are not in `rows`: only the tables tell
    their number.
    """

    rows: int
    exact: bool


@dataclass(frozen=True)
class ClaimedShard:
    """A shard that this process has claimed, with its older epochs finalized.

    row: of the ledger, with the new epoch as its last. begin: the progress from which its rows
    count: of its state, or the base in the ledger. taken: by table that the shard writes.
    """

    row: ShardRow
    begin: Progress
    taken: Mapping[str, Taken]

    @property
    def number(self) -> int:
        """Of the shard, as in the ledger."""
        return self.row.shard

    @property
    def streams(self) -> dict[str, str]:
        """Table -> stream of the new epoch."""
        return self.row.open_epochs[-1].streams

    @property
    def offsets(self) -> ShardOffsets:
        """Above which its rows are present."""
        return ShardOffsets(self.row.shard, self.begin.offsets)

    @property
    def is_exact(self) -> bool:
        """Whether the number of present rows is known; else only the least that must be there."""
        return all(taken.exact for taken in self.taken.values())

    @property
    def may_have_present(self) -> bool:
        """Whether its streams may have taken rows that lie above the offsets of `begin`."""
        return not self.is_exact or any(self._expected(table) for table in self.taken)

    def missing(self, found: Mapping[str, int]) -> list[str]:
        """What must still become visible, as text.

        found: table -> visible rows above the offsets of `begin`, as in all methods here.
        """
        return [
            f"shard {self.number}, {table}: {found.get(table, 0)} rows of {expected}"
            for table in self.taken
            if found.get(table, 0) < (expected := self._expected(table))
        ]

    def require_no_surplus(self, ledger: ShardLedger, found: Mapping[str, int]) -> None:
        """No table holds more rows than all streams have taken.

        Raises Superseded when a newer owner wrote them, GuaranteeError when they do not come from
        streaming at all.
        """
        surplus = {
            table: (found[table], expected)
            for table, taken in self.taken.items()
            if taken.exact and found[table] > (expected := self._expected(table))
        }
        if not surplus:
            return
        if ledger.read([self.number])[0].nonce != self.row.nonce:
            raise Superseded(f"shard {self.number} was taken over during its recovery")
        raise GuaranteeError(
            f"shard {self.number}: more rows than its write streams took (table: found, expected):"
            f" {surplus}. Somebody else writes to these tables,"
            " a bounded run for instance. Stop it, and start without a checkpoint."
        )

    def closed_rows(self, found: Mapping[str, int]) -> dict[str, int]:
        """What the ledger counts per table once the older streams are closed.

        What an expired stream has taken is known from the tables alone: all of it lies above the
        offsets of `begin`, or was counted as passed. Counted as nothing, its rows would be a
        surplus for the next recovery; not counted at all, a lower bound for ever.
        """
        counts = {
            table: taken.rows if taken.exact else found.get(table, 0) + self.begin.passed(table)
            for table, taken in self.taken.items()
        }
        return {**self.row.closed_rows, **counts}

    def new_progress(self, found: Mapping[str, int], present: Mapping[str, int]) -> Progress:
        """Under the new epoch, nothing appended yet. present: rows not passed, by table."""
        return Progress(
            self.row.epoch,
            self.row.ledger_id,
            {topic: dict(partitions) for topic, partitions in self.begin.offsets.items()},
            dict.fromkeys(self.taken, 0),
            dict(present),
            self.closed_rows(found),
        )

    def _expected(self, table: str) -> int:
        return self.taken[table].rows - self.begin.passed(table)


def taken_rows(
    row: ShardRow, begin: Progress, counted: Counted, tables: Sequence[str]
) -> dict[str, Taken]:
    """Table -> what all streams older than the claim have taken. counted: of the open ones.

    Raises GuaranteeError when the state belongs to another ledger, or has passed more rows than the
    streams hold.
    """
    if begin.epoch and (begin.ledger_id != row.ledger_id or begin.epoch >= row.epoch):
        raise GuaranteeError(
            f"shard {row.shard}: the checkpoint was made in epoch {begin.epoch} of the ledger"
            f" {begin.ledger_id}, which the ledger of this destination, {row.ledger_id} in epoch"
            f" {row.epoch - 1}, does not know. It belongs to another destination or table prefix:"
            " restore it there. Or it was made before the number of shards was changed: start"
            " without it, by --from_tables."
        )
    return {table: _taken(row, begin, counted, table) for table in tables}


def _taken(row: ShardRow, begin: Progress, counted: Counted, table: str) -> Taken:
    streams = counted.get(table, ())
    known = [rows for rows in streams if rows is not None]
    taken = Taken(row.closed_rows.get(table, 0) + sum(known), len(known) == len(streams))
    if taken.exact and taken.rows < begin.passed(table):
        raise GuaranteeError(
            f"shard {row.shard}, {table}: the write streams hold {taken.rows} rows, but"
            f" {begin.passed(table)} were acknowledged by epoch {begin.epoch}. The destination has"
            " lost rows, or its ledger was restored from a copy that is older than the checkpoint;"
            " `check` says which rows."
        )
    return taken
