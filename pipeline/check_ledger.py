"""The ledger agrees with itself: one chain, positions that continue, watermarks that never go back, nothing forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.check_result import FAILED, PASSED, PROOF_ROWS, CheckResult
from transforms.run_record import COMMITTED, PREPARED, PartitionProgress, RunRecord
from transforms.tables import ROW_TABLES


def check_ledger(runs: Sequence[RunRecord]) -> Iterator[CheckResult]:
    """`runs` is the chain as the destination has read it; a broken chain is found out there."""
    problems = list(_problems(runs))
    figure = f"{len(problems):,} breaks" if problems else f"{len(runs):,} records, each follows the one before"
    yield CheckResult("the ledger is one chain", FAILED if problems else PASSED, figure, problems[:PROOF_ROWS])


def _problems(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    before: dict[tuple[str, int], PartitionProgress] = {}
    cluster_id = runs[0].cluster_id
    for index, run in enumerate(runs):
        where = {"run_id": run.run_id}
        if run.status == PREPARED and index < len(runs) - 1:
            yield {**where, "problem": "PREPARED, although another run follows"}
        if run.cluster_id != cluster_id:
            yield {**where, "problem": f"cluster {run.cluster_id}, others {cluster_id}"}
        rows = sum(table.rows for table in run.tables if table.table in ROW_TABLES)
        if rows != sum(part.records for part in run.partitions):
            yield {**where, "problem": "its tables' rows are not its partitions' records"}
        now = {(part.topic, part.partition): part for part in run.partitions}
        for key, part in now.items():
            for problem in _partition_problems(part, before.get(key), run):
                yield {**where, "topic": part.topic, "partition": part.partition, "problem": problem}
        for topic, partition in before.keys() - now.keys():
            yield {**where, "topic": topic, "partition": partition, "problem": "forgotten"}
        if run.status == COMMITTED:
            before = now


def _partition_problems(part: PartitionProgress, before: PartitionProgress | None, run: RunRecord) -> Iterator[str]:
    if part.records + part.gap_offsets != part.to_offset - part.from_offset:
        yield f"{part.records} records and {part.gap_offsets} gaps do not fill offsets {part.from_offset} to {part.to_offset}"
    if before is None:
        return
    if part.from_offset != before.to_offset and (part.from_offset, part.to_offset) != (before.from_offset, before.to_offset):
        yield f"starts at {part.from_offset}, the run before ended at {before.to_offset}"
    if before.watermark is not None and (part.watermark is None or part.watermark < before.watermark):
        yield f"watermark {part.watermark} after {before.watermark}"
    if part.topic_id != before.topic_id:
        yield f"topic id {part.topic_id} after {before.topic_id}"
