"""Ids that a run takes over from the one before it, held against the tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.run.ids_between_runs import IdsBetweenRuns
from pipeline.run.plan import Plan
from pipeline.run.prove import Proof
from transforms.deduplicate import known_ids
from transforms.deduplicate.id_files import IdFiles
from transforms.deduplicate.known_ids import ColdStart
from transforms.deduplicate.remembered_ids import RememberedIds
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.model.fingerprints import fingerprints_in


class ComparedWithTables(IdsBetweenRuns):
    """Where the runs of one process have their ids from; asserts that they are those of the tables.

    used: runs that began with the memory of this process. read: with files. loaded: neither.
    """

    def __init__(
        self, destination: str = "", folder: Path | None = None, workers_here: bool = True
    ) -> None:
        """destination: the value of --destination. folder: for files; None: none."""
        super().__init__(IdFiles(str(folder), destination) if folder else None, workers_here)
        self.used = self.read = self.loaded = 0
        self._start: ColdStart | None = None

    def begin(self, plan: Plan, start: ColdStart, before: RunRecord) -> None:
        known, self._start = self._ids, start
        super().begin(plan, start, before)
        if self._ids is None:
            self.loaded += 1
            return
        if self._ids is known:
            self.used += 1
        else:
            self.read += 1
        _same(self._ids, start)

    def advance(self, record: RunRecord, status: str, proof: Proof) -> None:
        super().advance(record, status, proof)
        if self._ids is not None:
            assert self._start is not None
            _same(self._ids, self._start)


def in_another_process(step: Callable[..., None]) -> Callable[..., None]:
    """The step, with nothing of what this process remembers, which comes back behind it."""

    def elsewhere(*given: Any) -> None:
        of_this_process = dict(known_ids._LOADED)
        known_ids.forget_known_ids()
        step(*given)
        known_ids.forget_known_ids()
        known_ids._LOADED.update(of_this_process)

    return elsewhere


def _same(ids: RememberedIds, start: ColdStart) -> None:
    found: Any = start.destination.rows.live_ids(
        start.watermark_us, start.extra_retention_us, None, start.seed
    )
    fingerprints = fingerprints_in(found.column("fingerprint").combine_chunks())
    buckets = found.column("bucket").to_pylist()
    assert ids.buckets_of(fingerprints).tolist() == buckets
    assert ids.live == Counter(buckets)
