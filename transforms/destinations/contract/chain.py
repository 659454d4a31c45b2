"""The records of the ledger in the order of the chain, as `check` and a long run read them.

The chain begins with genesis, or with the border of the newest prune; before it come the landmarks
that this prune has left of what it removed (run_tail.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transforms.destinations.contract.pruned import PRUNED, pruned_of
from transforms.destinations.contract.run_ledger import ABORTED, COMMITTED, RunRecord
from transforms.destinations.contract.run_tail import LinkedRecord, landmarks_of
from transforms.model.errors import GuaranteeError
from transforms.model.tables import RUNS


def in_order(found: Sequence[LinkedRecord]) -> list[RunRecord]:
    """All records in the order of the chain. found: in any order.

    Raises GuaranteeError when a record is missing or stands outside of the chain.
    """
    if not found:
        return []
    there = {linked.record.run_id: linked for linked in found}
    ends = [linked.record for linked in found if linked.successor is None]
    chain = _before(ends[0], there) if len(ends) == 1 and len(there) == len(found) else []
    prune = next(
        (run for run in chain[::-1] if PRUNED in run.settings and run.status != ABORTED), None
    )
    if prune is None:
        if not chain or chain[0].predecessor is not None or len(chain) != len(found):
            raise _broken(found, chain)
        return chain
    return _behind_border(prune, chain, there, found)


def _before(end: RunRecord, there: Mapping[str, LinkedRecord]) -> list[RunRecord]:
    """The chain up to its end, as far back as it goes."""
    chain = [end]
    while before := there.get(chain[-1].predecessor or ""):
        if before.successor != chain[-1].run_id:
            raise _other_successor(before)
        if len(chain) > len(there):
            break
        chain.append(before.record)
    return chain[::-1]


def _behind_border(
    prune: RunRecord,
    chain: Sequence[RunRecord],
    there: Mapping[str, LinkedRecord],
    found: Sequence[LinkedRecord],
) -> list[RunRecord]:
    """While the prune is not COMMITTED, more than its landmarks may be left of what it removes."""
    pruned = pruned_of(prune)
    assert pruned is not None
    names = [run.run_id for run in chain]
    if pruned.border not in names:
        raise _broken(found, chain)
    behind = list(chain[names.index(pruned.border) :])
    left = {run.run_id for run in behind}
    marks = [mark.run_id for mark in landmarks_of(prune) or [] if mark.run_id not in left]
    before = [there[mark].record for mark in marks if mark in there]
    if len(before) != len(marks) or (
        prune.status == COMMITTED and len(before) + len(behind) != len(found)
    ):
        raise _broken(found, chain)
    return [*before, *behind]


def _broken(found: Sequence[LinkedRecord], chain: Sequence[RunRecord]) -> GuaranteeError:
    """Where the chain breaks, told from its beginning, or that records stand outside of it."""
    following = {linked.record.predecessor: linked for linked in found}
    at, steps = following.get(None), 0
    while at is not None and steps <= len(found):
        after = following.get(at.record.run_id)
        if at.successor != (after.record.run_id if after else None):
            return _other_successor(at)
        at, steps = after, steps + 1
    return GuaranteeError(
        f"{RUNS}: {len(found)} records, but the chain from its beginning holds"
        f" {steps or len(chain)}. Run `check`, restore the ledger."
    )


def _other_successor(linked: LinkedRecord) -> GuaranteeError:
    return GuaranteeError(
        f"{RUNS}: the chain breaks behind {linked.record.run_id}: its successor"
        f" {linked.successor} is not the record that follows it."
    )


def older_than(border: str, predecessors: Mapping[str, str | None]) -> list[str]:
    """The records before the border, the oldest first. predecessors: run_id -> predecessor."""
    older: list[str] = []
    at = predecessors.get(border)
    while at is not None and at in predecessors and len(older) <= len(predecessors):
        older.append(at)
        at = predecessors[at]
    return older[::-1]
