"""What a prune removes, on its way from the claim to its mark.

1. Gaps that merely held no record, and the totals of windows that go as a whole.
2. Its streams are committed (commit.py): gaps in the place of rows, totals to take off.
3. The rows, and the records before the border.

So while a row is missing, all that stands in its place is visible, and while a stream is not
committed, all rows are there: where the streams have expired, they are written again from the rows.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.pruned import Pruned, pruned_of
from transforms.destinations.contract.run_ledger import RunRecord, amount_and_currency
from transforms.destinations.contract.run_tail import landmarks_of
from transforms.model.errors import GuaranteeError
from transforms.model.tables import GAPS, NO_RECORD, TOTALS


def remove(destination: Destination, record: RunRecord, still_mine: Callable[[], None]) -> None:
    """Step 3. May be called again, by several processes at once.

    still_mine: raises where the time for it is over: a process that was suspended must not go on
    when others have gone on without it.
    """
    pruned = _pruned(record)
    destination.pruning.remove_rows(pruned.cut(), still_mine)
    still_mine()
    keep = [mark.run_id for mark in landmarks_of(record) or []]
    destination.runs.forget_before(pruned.border, keep)


def not_visible(destination: Destination, record: RunRecord) -> set[str]:
    """The tables whose streams of a PREPARED prune were not committed; step 1 is behind it.

    Raises GuaranteeError where the totals miss another number of rows than such a prune can lead
    to.
    """
    pruned, pruning = _pruned(record), destination.pruning
    cut, found = pruned.cut(), set()
    removed = sum(pruned.removed().values())
    if offsets_in(pruning.rows_in(cut.ranges)) != removed + pruned.kept:
        return set()
    gaps = pruning.gaps_in(cut.ranges)
    final = gaps.filter(pc.not_equal(gaps.column("cause"), NO_RECORD))
    if offsets_in(final) != sum(part.gap_offsets for part in pruned.partitions):
        found.add(GAPS)
    if TOTALS not in {table.table for table in record.tables}:
        return found
    taken_off = pc.sum(
        pruning.totals_to_take_off(cut, *amount_and_currency(record.settings)).column("records")
    ).as_py()
    missing = destination.rows.count_rows() - destination.rows.count_in_totals()
    # The rows that go are still there, and their totals went: all, or all but those to take off.
    missing -= pruned.not_in_totals + removed
    if missing not in (0, -taken_off):
        raise GuaranteeError(
            f"prune {record.run_id}: its streams have expired, and control_totals miss"
            f" {missing + taken_off} rows more than before it took off its own, which is neither"
            f" none nor these {taken_off}: the tables were altered by hand. Run `check`, and"
            " restore the destination from a backup."
        )
    return found | ({TOTALS} if missing else set())


def offsets_in(runs: pa.Table) -> int:
    """How many offsets lie in runs of them, `first_offset` and `last_offset` included."""
    lengths = pc.subtract(runs.column("last_offset"), runs.column("first_offset"))
    total: int | None = pc.sum(pc.add(lengths, 1)).as_py()
    return total or 0


def _pruned(record: RunRecord) -> Pruned:
    pruned = pruned_of(record)
    assert pruned is not None
    return pruned
