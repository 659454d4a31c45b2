"""Before step 4 of a run: too many of its records would be rejected for that to be right.

A wrong --schema rejects a whole topic. Nothing is lost then, but no payment arrives either, and
that must not look like success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.run.plan import Plan
from transforms.destinations.contract.ownership import written_at
from transforms.destinations.contract.pruned import pruned_of
from transforms.destinations.contract.run_ledger import COMMITTED, PartitionProgress, RunRecord
from transforms.model.coordinates import OffsetRange, TopicPartition
from transforms.model.errors import GuaranteeError
from transforms.model.rejected import (
    FUTURE,
    INVALID_JSON,
    LATE,
    MISSING_FIELD,
    NULL_VALUE,
    OUT_OF_RANGE,
    REFUSED,
    TOO_LARGE,
    UNKNOWN_FIELD,
    WRONG_TYPE,
)
from transforms.model.rejected_counts import RejectedCount, describe, most_frequent
from transforms.model.topic_generations import kafka_topic

NEWEST_RECORDS: Final = 1000
"""A topic's history: so many of its records, the newest in the ledger."""

DETAILS: Final = 5
NOT_JUDGED: Final = (NULL_VALUE, REFUSED)
"""They count neither as rejected nor as good.

A record without a value is a compacted topic's way to delete; a record that --reject_records names
was judged by a person.
"""

_FIX: Final = {
    TOO_LARGE: "Raise --max_record_bytes, or look at what is sent.",
    INVALID_JSON: "Look at what is sent: values must be JSON objects in UTF-8.",
    MISSING_FIELD: "Correct --schema, --dedup_key or --event_time_field.",
    WRONG_TYPE: "Correct the types in --schema, or --event_time_field.",
    OUT_OF_RANGE: "Correct the types in --schema, or look at what is sent.",
    UNKNOWN_FIELD: "Name the fields in --schema, or use --unknown_fields=keep.",
    FUTURE: "Look at the clocks of this machine and of those that send; see --max_future_skew.",
    LATE: "Raise --dedup_horizon, so that records may come that late.",
}


@dataclass(frozen=True)
class Judged:
    """Records that count, and how many of them are rejected."""

    records: int
    rejected: int

    def is_above(self, rate: float) -> bool:
        """False where no record counts."""
        return self.records > 0 and self.rejected / self.records > rate

    def __str__(self) -> str:
        return f"{self.rejected:,} of {self.records:,} ({self.rejected / self.records:.1%})"


@dataclass(frozen=True)
class TooMany:
    """What is wrong with a topic, in words; the most frequent causes; what to do about each."""

    what: str
    causes: Sequence[RejectedCount]
    fixes: Sequence[str]

    def __str__(self) -> str:
        return "\n  ".join([self.what, *map(describe, self.causes), *self.fixes])


@dataclass(frozen=True)
class History:
    """The newest records of one topic in the ledger.

    records: how many, NEWEST_RECORDS at most. ranges: where they lie, one for each partition.
    first_time, last_time: bounds of their rows' `ingest_time`, in microseconds. is_pruned: whether
    there were older ones, which a prune has removed.
    """

    records: int
    ranges: Sequence[OffsetRange]
    first_time: int
    last_time: int
    is_pruned: bool = False


NewestFirst = Callable[[], Iterable[RunRecord]]
"""All records of the chain, from its end on."""

RejectedIn = Callable[[Sequence[OffsetRange], int, int], Mapping[str, int]]
"""VisibleRows.rejected_by_reason."""


def check_rejected_rate(
    plan: Plan,
    read: Iterable[PartitionProgress],
    rejected: Sequence[RejectedCount],
    newest_first: NewestFirst,
    max_rate: float,
    rejected_in: RejectedIn,
) -> None:
    """Raises GuaranteeError where a topic's records are rejected at more than the rate.

    Both the transaction and the topic's history must be above it; without a history, the
    transaction alone. read, rejected: what the transaction has read and would reject. newest_first:
    the chain. A repair is not judged, it completes what is visible already.
    """
    if plan.repair is not None or max_rate >= 1:
        return
    records: dict[str, int] = {}
    for part in read:
        records[part.topic] = records.get(part.topic, 0) + part.records
    judged = [
        judge_topic(topic, count, rejected, newest_first, max_rate, rejected_in)
        for topic, count in sorted(records.items())
    ]
    problems = [str(problem) for problem in judged if problem is not None]
    if problems:
        raise GuaranteeError(
            "\n".join(problems) + "\nNothing of this transaction is visible, and the next run reads"
            " it again. If the records are to be rejected all the same, raise"
            f" --max_rejected_rate={max_rate:g}; 1 switches it off."
        )


def judge_topic(
    topic: str,
    records: int,
    rejected: Sequence[RejectedCount],
    newest_first: NewestFirst,
    max_rate: float,
    rejected_in: RejectedIn,
) -> TooMany | None:
    """What is wrong with the topic; None where the rate is not exceeded.

    records: those read of the topic. rejected: of every topic, by cause. newest_first: the chain,
    which is looked at only where the rate is exceeded.
    """
    mine = [count for count in rejected if count.topic == topic]
    now = _judged(records, _by_reason(mine))
    if not now.is_above(max_rate):
        return None
    history = newest_records(topic, newest_first())
    if history.is_pruned and history.records < NEWEST_RECORDS:
        return None  # What the older ones were is not known any more.
    before = Judged(0, 0)
    if history.records:
        reasons = rejected_in(history.ranges, history.first_time, history.last_time)
        before = _judged(history.records, reasons)
    if before.records and not before.is_above(max_rate):
        return None
    details = most_frequent(
        [count for count in rejected if count.reason not in NOT_JUDGED], topic, DETAILS
    )
    past = f", and so were {before} of its newest in the tables" if before.records else ""
    return TooMany(
        f"topic {topic}: {now} records would be rejected{past};"
        f" --max_rejected_rate={max_rate:g} is in force.",
        details,
        [_FIX[reason] for reason in dict.fromkeys(one.reason for one in details)],
    )


def newest_records(topic: str, newest_first: Iterable[RunRecord]) -> History:
    """The last NEWEST_RECORDS records of the topic that COMMITTED runs have read.

    Those of its older generations are its history too. newest_first: the chain from its end on; no
    further is looked than the topic was known.
    Of the oldest run that is needed, each partition gives its share of them, from the end of what
    the run has read of it.
    """
    wanted = NEWEST_RECORDS
    ranges: dict[TopicPartition, OffsetRange] = {}
    times: list[int] = []
    border, is_pruned = None, False
    for run in newest_first:
        if run.run_id == border:
            # The rows of this run and of those before it were pruned.
            is_pruned = any(
                kafka_topic(part.topic) == kafka_topic(topic) and part.to_offset > 0
                for part in run.partitions
            )
            break
        if run.status != COMMITTED:
            continue
        if border is None and (pruned := pruned_of(run)) is not None:
            border = pruned.border
        known = [part for part in run.partitions if kafka_topic(part.topic) == kafka_topic(topic)]
        parts = [part for part in known if part.records]
        there = sum(part.records for part in parts)
        times += written_at(run) if there else ()
        for part in parts:
            span = part.to_offset - part.from_offset
            # Rounded up, so that every partition has a share.
            taken = span if there <= wanted else -(-span * wanted // there)
            where = (part.topic, part.partition)
            end = ranges[where][3] if where in ranges else part.to_offset
            ranges[where] = (*where, part.to_offset - taken, end)
        wanted -= min(wanted, there)
        # Each record names every partition that was ever read.
        if not wanted or all(part.from_offset == 0 for part in known):
            break
    return History(
        NEWEST_RECORDS - wanted,
        list(ranges.values()),
        min(times, default=0),
        max(times, default=0),
        is_pruned,
    )


def _by_reason(counts: Iterable[RejectedCount]) -> dict[str, int]:
    reasons: dict[str, int] = {}
    for count in counts:
        reasons[count.reason] = reasons.get(count.reason, 0) + count.records
    return reasons


def _judged(records: int, reasons: Mapping[str, int]) -> Judged:
    """Without records of NOT_JUDGED."""
    left = max(0, records - sum(reasons.get(reason, 0) for reason in NOT_JUDGED))
    rejected = sum(count for reason, count in reasons.items() if reason not in NOT_JUDGED)
    return Judged(left, min(rejected, left))
