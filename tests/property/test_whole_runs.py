"""Whole runs against an oracle of the three layers: dicts and loops, no columns, no state cells, no
SQL.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME
from hypothesis import given
from hypothesis import strategies as st

from pipeline.check.command import check
from tests.support.examples import examples
from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    Partition,
    config,
    payment,
    run,
    table,
    use,
)
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.duckdb.destination import DuckDBDestination

HORIZON = HOUR_US
SKEW = 5 * MINUTE_US
IDLE = MINUTE_US


@dataclass
class Oracle:
    """What the tables must hold after each run, from what was sent and from the ranges that the run
    has read.
    """

    extra: int
    sent: dict[tuple[int, int], Any] = field(default_factory=dict)
    append_times: dict[tuple[int, int], int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    watermarks: dict[int, int | None] = field(default_factory=dict)
    since: dict[int, int] = field(default_factory=dict)
    accepted: Counter[str] = field(default_factory=Counter)
    duplicates: Counter[str] = field(default_factory=Counter)
    rejected: dict[tuple[int, int], str] = field(default_factory=dict)
    latest: dict[str, int] = field(default_factory=dict)

    def start_watermarks(self, now: int) -> dict[int, int | None]:
        known = [mark for mark in self.watermarks.values() if mark is not None]
        marks = {}
        for partition, end in self.ends.items():
            mark = self.watermarks.get(partition)
            mark = mark if mark is not None else (min(known) if known else None)
            idle = (
                self.positions.get(partition, 0) == end
                and now - self.since.get(partition, now) >= IDLE
            )
            marks[partition] = max(mark, now - HORIZON) if idle and mark is not None else mark
        return marks

    def follow(self, record: RunRecord, now: int) -> None:
        marks = self.start_watermarks(now)
        lowest = None if None in marks.values() else min(marks.values())
        known = {
            key
            for key, time in self.latest.items()
            if lowest is None or (time // MINUTE_US + 1) * MINUTE_US + self.extra > lowest
        }
        for part in record.partitions:
            assert part.from_offset == self.positions.get(part.partition, 0), (
                "positions go on where they were"
            )
            assert part.start_watermark == marks[part.partition]
            highest, paid = marks[part.partition], False
            for offset in range(part.from_offset, part.to_offset):
                time = self.judge(part.partition, offset, marks[part.partition], now, known)
                if time is not None:
                    paid = True
                    highest = time - HORIZON if highest is None else max(highest, time - HORIZON)
            quiet = not paid and now - self.since.get(part.partition, now) >= IDLE
            if quiet and highest is not None and part.to_offset == self.ends[part.partition]:
                highest = max(highest, now - HORIZON)
            assert part.watermark == highest
            self.watermarks[part.partition] = highest
            if paid or part.partition not in self.since:
                self.since[part.partition] = now
            self.positions[part.partition] = part.to_offset

    def judge(
        self, partition: int, offset: int, watermark: int | None, now: int, known: set[str]
    ) -> int | None:
        """The event time of what moves the watermark, else None."""
        value = self.sent[partition, offset]
        if value is MARKER:
            return None
        if value is None:
            self.rejected[partition, offset] = "null_value"
            return None
        key, time = value
        if time > min(now, self.append_times.get((partition, offset), now)) + SKEW:
            self.rejected[partition, offset] = "future_event_time"
            return None
        if watermark is not None and time < watermark:
            self.rejected[partition, offset] = "late"
            return None
        (self.duplicates if key in known else self.accepted)[key] += 1
        known.add(key)
        self.latest[key] = max(time, self.latest.get(key, time))
        return int(time)


age = st.one_of(
    st.integers(0, 3 * HOUR_US),
    # Around the edges of late, expired and future.
    st.builds(
        lambda minutes, edge: minutes * MINUTE_US + edge,
        st.sampled_from([-6, -5, 0, 1, 59, 60, 61, 120]),
        st.sampled_from([-1000, -1, 0, 1, 999, 1000]),
    ),
)
record = st.one_of(
    st.tuples(st.sampled_from("abcdef"), age),
    st.tuples(st.sampled_from("abcdef"), age),
    st.sampled_from([MARKER, None]),
)
messages = st.lists(st.tuples(st.integers(0, 2), record), max_size=12)
step = st.tuples(
    messages,
    st.sampled_from(
        [0, 0, 30_000_000, 2 * MINUTE_US, 2 * HOUR_US]
    ),  # how much later the next run starts
    st.sampled_from([1, 3, 1000]),  # --max_records_per_run
    st.sampled_from([1, 3, 16]),  # --shards
    st.sampled_from(["sharded", "sharded", "per_key"]),
    st.booleans(),  # whether a partition is added
)


@examples(40)
@given(st.lists(step, min_size=1, max_size=4), st.sampled_from([0, 30 * MINUTE_US]))
def test_the_tables_hold_what_the_oracle_says(steps: list[Any], extra: int) -> None:
    kafka, oracle, now = InMemoryKafka(), Oracle(extra), NOW_US
    kafka.create("payments", 2)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        path = Path(folder, "payments.duckdb")
        for sent, later, at_once, shards, layout, add_partition in steps:
            now += later
            if add_partition and len(kafka.topics["payments"].partitions) < 3:
                kafka.topics["payments"].partitions.append(Partition())
            deliver(kafka, oracle, sent, now)
            before_first_run = not oracle.since
            if before_first_run:
                oracle.since = dict.fromkeys(oracle.ends, now)
            options = {
                "max_records_per_run": at_once,
                "shards": shards,
                "dedup_layout": layout,
                "extra_retention_us": extra,
            }
            for done in run(config(path, **options), now):
                oracle.follow(done, now)
            compare(path, oracle)


def deliver(kafka: InMemoryKafka, oracle: Oracle, sent: list[Any], now: int) -> None:
    partitions = len(kafka.topics["payments"].partitions)
    for wanted, message in sent:
        partition = wanted % partitions
        offset = oracle.ends.get(partition, 0)
        if isinstance(message, tuple):
            message = (message[0], now - message[1])
        kafka.send(
            "payments",
            partition,
            payment(*message) if isinstance(message, tuple) else message,
            # By offset: what the broker has stamped, and what a producer without a clock has.
            timestamp_us=now if offset % 2 else 0,
            timestamp_type=TIMESTAMP_LOG_APPEND_TIME if offset % 2 else TIMESTAMP_CREATE_TIME,
        )
        oracle.sent[partition, offset] = message
        if offset % 2:
            oracle.append_times[partition, offset] = now // 1000 * 1000
        oracle.ends[partition] = offset + 1
    for partition in range(partitions):
        oracle.ends.setdefault(partition, 0)


def compare(path: Path, oracle: Oracle) -> None:
    assert (
        Counter(row[0] for row in table(path, "SELECT transaction_id FROM payment_transactions"))
        == +oracle.accepted
    )
    assert (
        Counter(row[0] for row in table(path, "SELECT transaction_id FROM duplicate_transactions"))
        == +oracle.duplicates
    )
    rejected = {
        (row[0], row[1]): row[2]
        for row in table(path, "SELECT kafka_partition, kafka_offset, reason FROM rejected_records")
    }
    assert rejected == oracle.rejected
    with DuckDBDestination(str(path)) as destination:
        assert [
            result for result in check(destination, None, 1e9, 400) if result.status == "FAILED"
        ] == []
