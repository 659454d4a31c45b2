"""Second payments of an id: a failure within the dedup horizon, a note beyond it.

Computed here and not in SQL: the order of runs comes from following the chain of records, and
BigQuery limits the iterations of a recursive query
(https://cloud.google.com/bigquery/docs/recursive-ctes), while the chain has a record for every run
ever made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

import pyarrow as pa

from pipeline.check.result import FAILED, NOTED, PASSED, PROOF_ROWS, CheckResult
from pipeline.check.streamed import accepted_too_early, streamed_ranges
from pipeline.counted import counted
from transforms.destinations.contract.pruned import last_pruned
from transforms.destinations.contract.run_ledger import ABORTED, RunRecord
from transforms.model.buckets import BUCKET_US, expiry_of_bucket
from transforms.model.coordinates import TopicPartition

_EPOCH: Final = datetime(1970, 1, 1)
_COLUMNS: Final = (
    "transaction_id",
    "is_payment",
    "event_time_us",
    "kafka_topic",
    "kafka_partition",
    "kafka_offset",
)


@dataclass(frozen=True)
class _Copy:
    """A row of payments or duplicates. run: index in the chain of the run that read it."""

    transaction_id: str
    run: int
    is_payment: bool
    event_time_us: int
    coordinate: Sequence[Any]
    """Topic, partition, offset."""


def repeated_payments(
    copies: pa.Table, runs: Sequence[RunRecord], first_time: int, last_time: int
) -> list[dict[str, Any]]:
    """One row of a proof for each payment whose id had been accepted before.

    copies: the answer to `copies_of_repeated_ids`; runs: the chain in its order; first_time and
    last_time: event times in microseconds, both included. A payment is `beyond_horizon` when its
    run did not load the id any more: the run's lowest start watermark had passed the minute of the
    latest copy that earlier runs have seen.
    """
    pruned = last_pruned(reversed(runs))
    chain = _ChainIndex(runs, pruned.below() if pruned else {})
    columns = (copies.column(name).to_pylist() for name in _COLUMNS)
    found = [
        _Copy(transaction_id, chain.of(*coordinate), is_payment, event_time_us, coordinate)
        for transaction_id, is_payment, event_time_us, *coordinate in zip(*columns, strict=True)
    ]
    found.sort(key=lambda copy: (copy.transaction_id, copy.run, copy.coordinate))
    rows, streamed = [], streamed_ranges(runs)
    for _, of_one_id in groupby(found, key=lambda copy: copy.transaction_id):
        judged = _judge(of_one_id, runs, streamed)
        rows += [row for time, row in judged if first_time <= time <= last_time]
    return rows


def repeat_results(
    name: str, repeats: Sequence[dict[str, Any]], figure: Callable[[int], str], beyond: str
) -> Iterator[CheckResult]:
    """A result for those within the dedup horizon, and a note where there are others.

    repeats: see repeated_payments. name, beyond: of the two results. figure: from the number within
    the horizon to what is said of it.
    """
    wrong = [row for row in repeats if not row["beyond_horizon"]]
    yield CheckResult(name, FAILED if wrong else PASSED, figure(len(wrong)), wrong[:PROOF_ROWS])
    if others := [row for row in repeats if row["beyond_horizon"]]:
        yield CheckResult(beyond, NOTED, counted(len(others), "payment"), others[:PROOF_ROWS])


_BEFORE: Final = -1
"""Stands for the job before this pipeline, and for the runs before the border of a prune, which are
not told apart any more.
"""


class _ChainIndex:
    """Which run has read a coordinate. below: the positions of the border of a prune."""

    def __init__(self, runs: Sequence[RunRecord], below: Mapping[TopicPartition, int]) -> None:
        self._unread = len(runs)
        self._below = below
        starts: dict[TopicPartition, list[tuple[int, int, int]]] = {}
        for index, run in enumerate(runs):
            for part in run.partitions:
                if run.status != ABORTED and part.to_offset > part.from_offset:
                    starts.setdefault((part.topic, part.partition), []).append(
                        (part.from_offset, index, part.to_offset)
                    )
        self._starts = {key: sorted(of_partition) for key, of_partition in starts.items()}

    def of(self, topic: str, partition: int, offset: int) -> int:
        """Index of the run in the chain; _BEFORE for the old job and before the border of a prune;
        len(runs) for a coordinate that no run has read, which another check reports.
        """
        if not topic or offset < self._below.get((topic, partition), 0):
            return _BEFORE
        starts = self._starts.get((topic, partition), [])
        before = bisect_right(starts, (offset, self._unread, 0)) - 1
        if before < 0 or offset >= starts[before][2]:
            return self._unread
        return starts[before][1]


def _judge(
    copies: Iterator[_Copy], runs: Sequence[RunRecord], streamed: Sequence[bool]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(event time in microseconds, row of the proof) of each repeated payment of one id.

    copies: of that id, in the order of the chain. streamed: see streamed_ranges.
    """
    payments_before = 0
    latest_before: int | None = None
    for index, of_one_run in groupby(copies, key=lambda copy: copy.run):
        together = list(of_one_run)
        payments = [copy for copy in together if copy.is_payment]
        run = runs[index] if 0 <= index < len(runs) else None
        if index == _BEFORE:
            pass  # Runs were judged before they were pruned.
        elif streamed[index]:
            yield from _judge_streamed(payments, latest_before, (run or runs[-1]).settings)
        elif payments_before or len(payments) > 1:
            beyond = len(payments) == 1 and _had_expired(latest_before, run)
            for copy in payments:
                yield copy.event_time_us, _proof(copy, latest_before, beyond)
        payments_before += len(payments)
        seen = [copy.event_time_us for copy in together]
        latest_before = max(seen) if latest_before is None else max(latest_before, *seen)


def _judge_streamed(
    payments: Sequence[_Copy], latest_before: int | None, settings: Mapping[str, object]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """As _judge, of payments that a job has accepted, in an order that only their times tell."""
    by_time = sorted(payments, key=lambda copy: copy.event_time_us)
    extra_retention = int(str(settings["extra_retention_us"]))
    times = [copy.event_time_us for copy in by_time]
    repeated = accepted_too_early(times, latest_before, extra_retention)
    # The first payment of an id repeats none.
    for copy, (time, before, expired) in zip(
        by_time[len(by_time) - len(repeated) :], repeated, strict=True
    ):
        yield time, _proof(copy, before, expired)


def _had_expired(latest_before: int | None, run: RunRecord | None) -> bool:
    """Whether the run no longer knew an id whose latest copy had this event time."""
    if latest_before is None or run is None or run.lowest_watermark is None:
        return False
    extra_retention = int(str(run.settings["extra_retention_us"]))
    return expiry_of_bucket(latest_before // BUCKET_US, extra_retention) <= run.lowest_watermark


def _proof(copy: _Copy, latest_before: int | None, beyond_horizon: bool) -> dict[str, Any]:
    topic, partition, offset = copy.coordinate
    return {
        "transaction_id": copy.transaction_id,
        "kafka_topic": topic,
        "kafka_partition": partition,
        "kafka_offset": offset,
        "event_time": _EPOCH + timedelta(microseconds=copy.event_time_us),
        "seconds_apart": None
        if latest_before is None
        else (copy.event_time_us - latest_before) // 1_000_000,
        "beyond_horizon": beyond_horizon,
    }
