"""Step 1 of streaming, (c): how many rows of a claimed shard the tables must hold.

The rows above the offsets of its state are *present*. There must be as many as those still left
from earlier recoveries, plus what the epoch of the state and later ones have added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transforms.destinations.contract.present_rows import ShardOffsets
from transforms.destinations.contract.shard_ledger import Progress, ShardLedger, ShardRow
from transforms.model.errors import GuaranteeError
from transforms.stream.errors import Superseded

Counted = Mapping[int, Mapping[str, int | None]]
"""Epoch -> table -> rows that finalize counted in its stream; None: the stream had expired."""


@dataclass(frozen=True)
class Expected:
    """Rows of one table above the offsets of a progress.

    exact: False when a stream had expired: then `rows` is the least that must be there.
    """

    rows: int
    exact: bool


@dataclass(frozen=True)
class ClaimedShard:
    """A shard that this process has claimed, with its older epochs finalized.

    row: of the ledger, with the new epoch as its last. begin: the progress from which its rows
    count: of its state, or the base in the ledger. counted: of the older epochs that were open.
    expected: table -> rows that it must hold above the offsets of `begin`.
    """

    row: ShardRow
    begin: Progress
    counted: Counted
    expected: Mapping[str, Expected]

    @property
    def number(self) -> int:
        """Of the shard, as in the ledger."""
        return self.row.shard

    @property
    def streams(self) -> dict[str, str]:
        """Table -> stream of the new epoch."""
        return self.row.epochs[-1].streams

    @property
    def offsets(self) -> ShardOffsets:
        """Above which its rows are present."""
        return ShardOffsets(self.row.shard, self.begin.offsets)

    def missing(self, found: Mapping[str, int]) -> list[str]:
        """What must still become visible, as text. found: table -> visible rows."""
        return [
            f"shard {self.number}, {table}: {found.get(table, 0)} rows of {expected.rows}"
            for table, expected in self.expected.items()
            if found.get(table, 0) < expected.rows
        ]

    def require_no_surplus(self, ledger: ShardLedger, found: Mapping[str, int]) -> None:
        """No table holds more rows than all streams have taken. found: table -> visible rows.

        Raises Superseded when a newer owner wrote them, GuaranteeError when they do not come from
        streaming at all.
        """
        surplus = {
            table: (found[table], expected.rows)
            for table, expected in self.expected.items()
            if expected.exact and found[table] > expected.rows
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

    def new_progress(self, present: Mapping[str, int]) -> Progress:
        """Under the new epoch, nothing appended yet. present: table -> rows above the offsets."""
        offsets = {topic: dict(partitions) for topic, partitions in self.begin.offsets.items()}
        next_offsets = dict.fromkeys(self.expected, 0)
        epoch = self.row.epochs[-1]
        return Progress(epoch.number, epoch.nonce, offsets, next_offsets, dict(present))


def expected_rows(
    row: ShardRow, begin: Progress, counted: Counted, tables: Sequence[str]
) -> dict[str, Expected]:
    """(c) Table -> its rows above the offsets of `begin`.

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
    return {table: _expected(row, begin, counted, table) for table in tables}


def _expected(row: ShardRow, begin: Progress, counted: Counted, table: str) -> Expected:
    rows, exact = begin.present.get(table, 0), True
    for epoch in row.epochs[max(begin.epoch - 1, 0) : -1]:
        # An epoch that was closed earlier has its counts in the ledger.
        taken = counted.get(epoch.number, epoch.rows).get(table, 0)
        # The state knows what its own epoch had appended by then: those rows are not above it.
        before = begin.next_offsets.get(table, 0) if epoch.number == begin.epoch else 0
        if taken is None:
            exact = False
        elif taken < before:
            raise GuaranteeError(
                f"shard {row.shard}, {table}: the stream of epoch {epoch.number} holds {taken}"
                f" rows, but {before} were acknowledged. The destination has lost rows; `check`"
                " says which."
            )
        else:
            rows += taken - before
    return Expected(rows, exact)
