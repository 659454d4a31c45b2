"""The ledger agrees with itself and with the tables.

One chain; positions continue where the run before ended; watermarks follow from the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from pipeline.check.result import FAILED, PASSED, PROOF_ROWS, CheckResult
from pipeline.check.seeded import seed_problems
from pipeline.check.topics import topic_problems
from pipeline.counted import counted
from pipeline.run.generations import topics_of
from pipeline.run.plan import first_watermark
from transforms.destinations.contract.ownership import is_binding, ownership_of
from transforms.destinations.contract.pruned import judged
from transforms.destinations.contract.run_ledger import (
    COMMITTED,
    OLD_JOB,
    PREPARED,
    PartitionProgress,
    RunRecord,
    clusters_of,
    horizon_of,
    partitions_of,
)
from transforms.destinations.contract.run_tail import landmarks_of, told_otherwise
from transforms.destinations.contract.snapshot import Snapshot
from transforms.model.coordinates import TopicPartition
from transforms.model.tables import ROW_TABLES

RunPartition = tuple[str, str, int]
"""(run_id, topic, partition)."""


def highest_event_times(snapshot: Snapshot) -> dict[RunPartition, int]:
    """Highest event time (microseconds) of the payments and duplicates that each run has read."""
    found = snapshot.query(snapshot.checks.highest_event_times)
    return {
        (row["run_id"], row["kafka_topic"], row["kafka_partition"]): row["highest_us"]
        for row in found.to_pylist()
    }


def check_ledger(
    runs: Sequence[RunRecord], highest: Mapping[RunPartition, int]
) -> Iterator[CheckResult]:
    """One result. runs: the chain in its order; reading it has raised where it was broken."""
    problems = [*_problems(runs, highest), *_landmark_problems(runs), *seed_problems(runs)]
    figure = (
        counted(len(problems), "break")
        if problems
        else f"{counted(len(runs), 'record')}, each follows the one before"
    )
    yield CheckResult(
        "the ledger is one chain", FAILED if problems else PASSED, figure, problems[:PROOF_ROWS]
    )


def _landmark_problems(runs: Sequence[RunRecord]) -> Iterator[dict[str, Any]]:
    """A run reads the tail of the chain: it must be told there what the whole chain says."""
    committed = [number for number, run in enumerate(runs) if run.status == COMMITTED]
    chain = runs[: committed[-1] + 1] if committed else ()
    marks = landmarks_of(chain[-1]) if chain else None
    if marks is None:
        return
    there = {run.run_id: run for run in chain}
    where = {"run_id": chain[-1].run_id}
    if missing := [mark.run_id for mark in marks if mark.run_id not in there]:
        yield {**where, "problem": f"its landmarks {', '.join(missing)} are not in the chain"}
        return
    part = [*(there[mark.run_id] for mark in marks), chain[-1]]
    for question in told_otherwise(part, chain):
        yield {**where, "problem": f"its landmarks tell {question} otherwise than the whole chain"}


def _problems(
    runs: Sequence[RunRecord], highest: Mapping[RunPartition, int]
) -> Iterator[dict[str, Any]]:
    before: dict[TopicPartition, PartitionProgress] = {}
    clusters: dict[str, str] = {}
    horizon_before = 0
    whole = judged(runs)
    # Up to the border of a prune, the records do not follow one another any more.
    for run in runs[: len(runs) - len(whole)]:
        before = partitions_of(run)
        clusters |= {topic: cluster for topic, cluster in clusters_of(run).items() if cluster}
        horizon_before = horizon_of(run) if is_binding(run) else horizon_before
    runs = whole
    for index, run in enumerate(runs):
        where = {"run_id": run.run_id}
        if run.status == PREPARED and index < len(runs) - 1:
            yield {**where, "problem": "PREPARED, although another run follows"}
        yield from ({**where, **problem} for problem in topic_problems(run, clusters, before))
        rows = sum(table.rows for table in run.tables if table.table in ROW_TABLES)
        if ownership_of(run) is None and rows != sum(part.records for part in run.partitions):
            yield {**where, "problem": "its tables' rows are not its partitions' records"}
        if run.status == COMMITTED and horizon_of(run) < horizon_before:
            yield {
                **where,
                "problem": f"dedup horizon {horizon_of(run)} us after {horizon_before} us",
            }
        yield from ({**where, "problem": problem} for problem in _load_problems(run))
        now = partitions_of(run)
        for key, part in now.items():
            for problem in _partition_problems(part, before.get(key), run):
                yield {
                    **where,
                    "topic": part.topic,
                    "partition": part.partition,
                    "problem": problem,
                }
            for problem in _watermark_problems(part, before, run, highest.get((run.run_id, *key))):
                yield {
                    **where,
                    "topic": part.topic,
                    "partition": part.partition,
                    "problem": problem,
                }
        for topic, partition in before.keys() - now.keys():
            yield {**where, "topic": topic, "partition": partition, "problem": "forgotten"}
        if run.status == COMMITTED:
            before = now
            # Before anything is read, no horizon is promised.
            horizon_before = horizon_of(run) if is_binding(run) else horizon_before


def _partition_problems(
    part: PartitionProgress, before: PartitionProgress | None, run: RunRecord
) -> Iterator[str]:
    if part.records + part.gap_offsets != part.to_offset - part.from_offset:
        yield (
            f"{counted(part.records, 'record')} and {counted(part.gap_offsets, 'gap')} do not fill"
            " offsets"
            f" {part.from_offset} to {part.to_offset}"
        )
    if before is None:
        return
    if part.from_offset != before.to_offset and (part.from_offset, part.to_offset) != (
        before.from_offset,
        before.to_offset,
    ):
        yield f"starts at {part.from_offset}, the run before ended at {before.to_offset}"
    if None not in (part.topic_id, before.topic_id) and part.topic_id != before.topic_id:
        yield f"topic id {part.topic_id} after {before.topic_id}"


def _watermark_problems(
    part: PartitionProgress,
    before: Mapping[TopicPartition, PartitionProgress],
    run: RunRecord,
    highest_us: int | None,
) -> Iterator[str]:
    """The watermark is the highest of: its start, and the highest event time less the horizon.

    The start is the watermark of the run before, or follows the clock in an idle partition, as the
    watermark does where the run has read no payment and no duplicate.
    """
    last = before.get((part.topic, part.partition))
    topics: Any = run.settings.get("topics", ())
    known = topics_of(before.values())
    carried = {where: one.watermark for where, one in before.items()}
    if OLD_JOB in run.settings:
        least: int | None = cast("dict[str, Any]", run.settings[OLD_JOB])["watermark_us"]
        if part.start_watermark != least:
            yield f"begins with the watermark {part.start_watermark}, the old job ended at {least}"
            return
    elif last is not None and last.watermark is not None:
        least = last.watermark
    else:
        least = first_watermark(part.topic, carried, known, topics)
    carried_on = (
        last is not None
        and part.to_offset == part.from_offset
        and part.start_watermark == last.watermark
    )
    # A partition of a topic that the run did not name is carried on unchanged.
    if not carried_on:
        yield from _start_problems(part, least, run)
    if run.status != COMMITTED:
        return
    reached = [
        mark
        for mark in (
            part.start_watermark,
            None if highest_us is None else highest_us - horizon_of(run),
        )
        if mark is not None
    ]
    expected = max(reached, default=None)
    # In a repaired run the record with the highest event time may have been lost since.
    repaired = (
        run.repairs is not None
        and part.watermark is not None
        and (expected is None or part.watermark > expected)
    )
    # Where a run read to the end, and no payment, the watermark follows the clock.
    quiet = (
        highest_us is None
        and part.to_offset > part.from_offset
        and part.watermark is not None
        and part.start_watermark is not None
        and part.start_watermark <= part.watermark <= run.plan_time - horizon_of(run)
    )
    if part.watermark != expected and not repaired and not quiet:
        yield f"watermark {part.watermark}, but its rows make it {expected}"


def _start_problems(part: PartitionProgress, least: int | None, run: RunRecord) -> Iterator[str]:
    """least: the watermark before, or the lowest of the others where there was none."""
    if (part.start_watermark is None) != (least is None):
        yield f"starts with the watermark {part.start_watermark} after {least}"
    elif (
        part.start_watermark is not None
        and least is not None
        and not least <= part.start_watermark <= _latest_start(least, run)
    ):
        yield (
            f"starts with the watermark {part.start_watermark} after {least},"
            f" planned at {run.plan_time}"
        )


def _latest_start(least: int, run: RunRecord) -> int:
    """An idle partition's watermark may follow the clock, less the dedup horizon."""
    return max(least, run.plan_time - horizon_of(run))


def _load_problems(run: RunRecord) -> Iterator[str]:
    """Ids below the run's lowest watermark were not loaded, so no partition may start below it."""
    starts = [part.start_watermark for part in run.partitions if part.to_offset > part.from_offset]
    known = [mark for mark in starts if mark is not None]
    if run.lowest_watermark is not None and (
        len(known) < len(starts) or run.lowest_watermark > min(known, default=run.lowest_watermark)
    ):
        yield (
            f"ids before the watermark {run.lowest_watermark} were not loaded, but it judged by"
            f" {starts}"
        )
