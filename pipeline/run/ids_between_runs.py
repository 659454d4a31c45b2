"""The ids that a run takes over from the one before it, in memory or from --state_dir.

Otherwise each would load every live id from the tables again. When they may be used, and why no
payment can be doubled or lost by them: docs/guarantees.md, 'Ids that are remembered'.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from pipeline.run.plan import Plan
from pipeline.run.prove import Proof
from transforms.deduplicate.id_files import IdFiles
from transforms.deduplicate.ids_format import IdsHeader, IdsUnreadable
from transforms.deduplicate.known_ids import ColdStart, StoredIds, begin_with, load_known_ids
from transforms.deduplicate.remembered_ids import RememberedIds
from transforms.destinations.contract.run_ledger import COMMITTED, GENESIS, RunRecord

_LOG = logging.getLogger(__name__)

_AT_ITS_BEGINNING: Final = "-begin"
"""Behind the id of a run: the file of what it begins with, where no run has left it."""


class IdsBetweenRuns:
    """What is remembered, and as of which run of the chain.

    files: None: in memory only. workers_here: whether the workers are in this process, and so have
    its memory.
    """

    def __init__(self, files: IdFiles | None = None, workers_here: bool = True) -> None:
        self._files = files
        self.workers_here = workers_here
        self._ids: RememberedIds | None = None
        self._as_of: str | None = None
        self._headers: Sequence[IdsHeader] = ()
        self._unclaimed: Sequence[IdsHeader] = ()
        self._known: RememberedIds | None = None
        self._has_folder = self._passes_over = self._said = False

    def begin(self, plan: Plan, start: ColdStart, before: RunRecord) -> None:
        """Before step 3: the run begins with what is remembered, where that is what it would load.

        Else it loads from the tables: behind a run of another process, an aborted one, a repair or
        a hand-over; where rows above the positions are in the tables; and where its bound lies
        lower, since a topic is named again, or the horizon has grown. before: the newest COMMITTED
        record.
        """
        if self._files is not None and not self._has_folder:
            self._has_folder = self._files.make_folder()
        self._known, self._unclaimed = None, ()
        self._passes_over = bool(plan.repair or plan.written.offsets)
        if self._as_of != before.run_id:
            self._forget()
        if before.run_id != plan.predecessor or self._passes_over:
            self._forget()
        elif self._ids is None or not self._ids.reach_back_to(start.expired_through):
            self._forget()
            self._read(before, start)
        if self._ids is not None:
            self._ids.forget_through(start.expired_through)
            begin_with(plan.run_id, self._ids)
            self._known = self._ids
        if plan.records_at_most and not self.workers_here and not self._headers:
            self._lay_out(plan, start, before)

    def stored(self, before: RunRecord) -> StoredIds | None:
        """Behind `begin`: the files that hold what the run begins with; None where there are none.

        before: as `begin` has got it.
        """
        if self._files is None or not self._headers:
            return None
        return StoredIds(self._files, self._headers[0].run_id, before.live_ids)

    def write(self, record: RunRecord, proof: Proof, start: ColdStart) -> None:
        """Before the claim of step 4: the file of this run. It counts once the run is COMMITTED.

        A repair, and a run that passes over rows which are in the tables, leave nothing: of these
        rows it knows what it has loaded, not what it would have judged. record: about to be
        claimed. start: as `begin` has got it.
        """
        changed = self._changed(proof)
        if changed is None:
            return
        self._known = self._known or load_known_ids(start)
        if self._files is not None and self._has_folder:
            # Not yet what the next run goes on from: this one may never be claimed, and then its
            # ids have no payment.
            self._unclaimed = self._files.write(
                record.run_id,
                record.live_ids,
                self._known,
                self._headers,
                changed,
                proof.live_id_changes,
            )

    def advance(self, record: RunRecord, status: str, proof: Proof) -> None:
        """Behind step 6: what the run has reported is remembered, if it is COMMITTED, and if
        `write` could leave it too.

        record: as it was claimed, and as `write` has got it. status: as it is now.
        """
        changed = self._changed(proof)
        if status != COMMITTED or changed is None or self._known is None:
            self._forget()
            return
        self._ids, self._as_of = self._known, record.run_id
        self._ids.advance(changed, proof.live_id_changes)
        self._headers = self._unclaimed
        if self._files is not None and self._has_folder:
            self._files.remove_others(self._headers)

    def _changed(self, proof: Proof) -> Sequence[bytes] | None:
        """What the run leaves to the next one; None: nothing, also where it has laid out ids for
        its own workers.
        """
        return None if self._passes_over else proof.ids

    def _lay_out(self, plan: Plan, start: ColdStart, before: RunRecord) -> None:
        """Loads the ids once, into a file for the workers: each would ask the tables for itself.

        No other run begins with that file by itself: it is of this run, which has not been claimed.
        """
        if self._files is None or not self._has_folder:
            if not self._said:
                _LOG.info(
                    "each worker process asks the tables for the known ids of this run; with a"
                    " --state_dir that all workers reach they are asked once"
                )
            self._said = True
            return
        self._known = self._known or load_known_ids(start)
        name = f"{plan.run_id}{_AT_ITS_BEGINNING}"
        self._headers = self._files.write(name, before.live_ids, self._known, (), (), {})

    def _read(self, before: RunRecord, start: ColdStart) -> None:
        if self._files is None or not self._has_folder or before.run_id == GENESIS:
            return
        try:
            self._ids, self._headers = self._files.read(
                before.run_id, before.live_ids, start.expired_through
            )
        except IdsUnreadable as problem:
            _LOG.info("the ids are loaded from the tables: %s", problem)
        else:
            self._as_of = before.run_id

    def _forget(self) -> None:
        self._ids = self._as_of = None
        self._headers = ()
