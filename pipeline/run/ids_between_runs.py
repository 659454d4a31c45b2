"""The ids that stay in memory from one transaction of this process to the next.

Otherwise each would load every live id from the tables again. When they may be used, and why no
payment can be doubled or lost by them: docs/guarantees.md, 'Ids that are remembered'.
"""

from __future__ import annotations

from pipeline.run.plan import Plan
from pipeline.run.prove import Proof
from transforms.deduplicate.known_ids import ColdStart, begin_with, load_known_ids
from transforms.deduplicate.remembered_ids import RememberedIds
from transforms.destinations.contract.run_ledger import COMMITTED, RunRecord


class IdsBetweenRuns:
    """What is remembered, and as of which run of the chain."""

    def __init__(self) -> None:
        self._ids: RememberedIds | None = None
        self._as_of: str | None = None

    def begin(self, plan: Plan, start: ColdStart) -> None:
        """Before step 3: the run begins with what is remembered, where that is what it would load.

        Else it loads from the tables: behind a run of another process, an aborted one, a repair or
        a hand-over; where rows above the positions are in the tables; and where its bound lies
        lower, since a topic is named again, or the horizon has grown.
        """
        ids = self._ids
        if (
            ids is not None
            and self._as_of == plan.predecessor
            and plan.repair is None
            and not plan.written.offsets
            and ids.reach_back_to(start.expired_through)
        ):
            ids.forget_through(start.expired_through)
            begin_with(plan.run_id, ids)
        else:
            self._ids = self._as_of = None

    def advance(self, record: RunRecord, status: str, proof: Proof, start: ColdStart) -> None:
        """Behind step 6: what the run has reported is remembered, if it is COMMITTED.

        record: as it was claimed. status: as it is now. start: as `begin` has got it.
        """
        if status != COMMITTED or proof.ids is None:
            return
        ids = load_known_ids(start)
        ids.advance(proof.ids, proof.live_id_changes)
        self._ids, self._as_of = ids, record.run_id
