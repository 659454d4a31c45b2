"""Is a topic being rejected as a whole? Judged by its newest records alone.

A topic with fewer than NEWEST_RECORDS is judged only where none of them was a payment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.check.result import NOTED, PROOF_ROWS, CheckResult, limit_result
from pipeline.counted import counted
from pipeline.run.rejected_rate import NEWEST_RECORDS, NOT_JUDGED
from transforms.destinations.contract.checks import ingest_times
from transforms.destinations.contract.ownership import written_at
from transforms.destinations.contract.pruned import judged, last_pruned
from transforms.destinations.contract.run_ledger import COMMITTED, PartitionProgress, RunRecord
from transforms.destinations.contract.snapshot import Snapshot
from transforms.destinations.contract.visible_rows import range_parameters
from transforms.model.coordinates import OffsetRange
from transforms.model.topic_generations import kafka_topic


@dataclass
class NewestRecords:
    """What the ledger read last of one topic.

    ranges: offsets that hold the newest NEWEST_RECORDS records, or all there are. known: records of
    the topic in the whole ledger. plan_times: of the runs that read the ranges, microseconds.
    """

    ranges: list[OffsetRange] = field(default_factory=list)
    known: int = 0
    plan_times: list[int] = field(default_factory=list)


def newest_records(runs: Sequence[RunRecord]) -> dict[str, NewestRecords]:
    """By topic, over its generations. runs: the chain in its order; COMMITTED ones count.

    Of the oldest run that is needed, each partition gives the same share of its newest offsets.
    """
    topics: dict[str, NewestRecords] = defaultdict(NewestRecords)
    for run in reversed(runs):
        if run.status != COMMITTED:
            continue
        parts: dict[str, list[PartitionProgress]] = defaultdict(list)
        for part in run.partitions:
            if part.records:
                parts[kafka_topic(part.topic)].append(part)
        for topic, of_topic in parts.items():
            newest, records = topics[topic], sum(part.records for part in of_topic)
            wanted = NEWEST_RECORDS - newest.known
            newest.known += records
            if wanted > 0:
                newest.ranges += [_tail(part, min(wanted, records), records) for part in of_topic]
                newest.plan_times += written_at(run)
    return topics


def _tail(part: PartitionProgress, wanted: int, records: int) -> OffsetRange:
    """The newest wanted / records of the partition's offsets, rounded up."""
    offsets = part.to_offset - part.from_offset
    return (
        part.topic,
        part.partition,
        part.to_offset - -(-offsets * wanted // records),
        part.to_offset,
    )


@dataclass
class _Counts:
    """Of the newest records of one topic. judged: those that count, rejected ones included."""

    judged: int
    rejected: int
    rows: list[dict[str, Any]]

    @property
    def share(self) -> float:
        return self.rejected / self.judged if self.judged else 0.0


def check_rejected_rate(
    snapshot: Snapshot, runs: Sequence[RunRecord], max_rejected_rate: float
) -> Iterator[CheckResult]:
    """One result over all topics. runs: the chain. max_rejected_rate: from 0 to 1; 1 switches the
    check off. A topic is not judged by the few records that a prune has left of it.
    """
    if max_rejected_rate >= 1:
        return
    newest = newest_records(judged(runs))
    before = last_pruned(reversed(runs))
    pruned = {kafka_topic(topic) for topic, _ in (before.below() if before else ())}
    if not newest:
        # What a job reads is in the ledger once it is stopped.
        figure = "nothing to judge: the ledger has no record that was read"
        yield CheckResult("rejected records", NOTED, figure)
        return
    counts = _counts(snapshot, newest)
    allowed = f"allowed {max_rejected_rate:.2%} (--max_rejected_rate)"
    above = {
        topic: found
        for topic, found in sorted(counts.items())
        if found.share > max_rejected_rate
        and (
            newest[topic].known >= NEWEST_RECORDS
            or (found.rejected == found.judged and topic not in pruned)
        )
    }
    if not above:
        few = {topic for topic in counts if newest[topic].known < NEWEST_RECORDS}
        highest = max((counts[topic].share for topic in counts.keys() - few), default=0.0)
        figure = f"at most {highest:.2%} of a topic's newest {NEWEST_RECORDS:,} records, {allowed}"
        if few:
            figure += f"; topics with fewer records are not judged: {', '.join(sorted(few))}"
        yield limit_result("rejected records", True, figure)
        return
    figure = "; ".join(
        f"{topic}: {found.rejected:,} of the newest {counted(found.judged, 'record')}"
        f" ({found.share:.2%})"
        for topic, found in above.items()
    )
    rows = [row for found in above.values() for row in found.rows]
    rows.sort(key=lambda row: (-row["records"], row["kafka_topic"], row["reason"], row["detail"]))
    yield limit_result(
        "rejected records",
        False,
        f"{figure}, {allowed}. They are in rejected_records with their bytes: correct the sender,"
        " or the options of run that say what a payment is, and send them again",
        rows[:PROOF_ROWS],
    )


def _counts(snapshot: Snapshot, newest: Mapping[str, NewestRecords]) -> dict[str, _Counts]:
    ranges = [found for of_topic in newest.values() for found in of_topic.ranges]
    times = [time for of_topic in newest.values() for time in of_topic.plan_times]
    where = range_parameters(ranges)
    counts = {topic: _Counts(0, 0, []) for topic in newest}
    for topic, _, first, end in ranges:
        counts[kafka_topic(topic)].judged += end - first
    for row in snapshot.query(snapshot.checks.gap_offsets, where).to_pylist():
        counts[kafka_topic(row["kafka_topic"])].judged -= row["offsets"]
    bounds = ingest_times(times)
    del bounds["times"]
    for row in snapshot.query(snapshot.checks.rejections, {**where, **bounds}).to_pylist():
        found = counts[kafka_topic(row["kafka_topic"])]
        if row["reason"] in NOT_JUDGED:
            found.judged -= row["records"]
        else:
            found.rejected += row["records"]
            found.rows.append(row)
    return counts
