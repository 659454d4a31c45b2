"""Ids in memory between runs, held against the tables after each run."""

from __future__ import annotations

from typing import Any

from pipeline.run.ids_between_runs import IdsBetweenRuns
from pipeline.run.plan import Plan
from pipeline.run.prove import Proof
from transforms.deduplicate.known_ids import ColdStart
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.model.fingerprints import fingerprints_in


class ComparedWithTables(IdsBetweenRuns):
    """used: how many runs began with what was remembered. loaded: how many did not."""

    def __init__(self) -> None:
        super().__init__()
        self.used = self.loaded = 0

    def begin(self, plan: Plan, start: ColdStart) -> None:
        super().begin(plan, start)
        if self._ids is None:
            self.loaded += 1
        else:
            self.used += 1

    def advance(self, record: RunRecord, status: str, proof: Proof, start: ColdStart) -> None:
        super().advance(record, status, proof, start)
        if self._ids is None or self._as_of != record.run_id:
            return
        found = start.destination.rows.live_ids(start.watermark_us, start.extra_retention_us)
        fingerprints = fingerprints_in(found.column("fingerprint").combine_chunks())
        buckets = found.column("bucket").to_pylist()
        assert self._ids.buckets_of(fingerprints).tolist() == buckets
        assert self._ids.live == _counted(buckets)


def _counted(buckets: list[Any]) -> dict[int, int]:
    return {bucket: buckets.count(bucket) for bucket in set(buckets)}
