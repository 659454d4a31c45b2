"""Whatever an old job has written, and however runs follow it, payments and copies are those of a
brute-force oracle that knows both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run import command
from tests.support.examples import examples
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    use,
)
from tests.support.remembered_ids import ComparedWithTables
from tests.support.seeded import OLD, checkpoint
from tests.support.whole_runs import COPIES, failures, ids
from transforms.destinations.contract.seed import SeedTable
from transforms.model.buckets import BUCKET_US, expiry_of_bucket

SEED = SeedTable(table=OLD, key_column="transaction_id", event_time_column="event_time")

Message = tuple[str, int]
"""Id and event time, in microseconds."""

messages = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 100)), max_size=8)
step = st.fixed_dictionaries(
    {
        "sent": messages,
        "later_us": st.sampled_from([0, MINUTE_US, 20 * MINUTE_US, 50 * MINUTE_US, 2 * HOUR_US]),
        "shards": st.sampled_from([1, 3]),
        "layout": st.sampled_from(["sharded", "per_key"]),
        "dies_in": st.sampled_from([None, None, None, "read_and_write", "commit"]),
        "is_new_process": st.booleans(),
        "loses_files": st.booleans(),
    }
)


class Died(BaseException):
    """The process is gone."""


@examples(25)
@given(
    old=messages,
    committed=st.integers(0, 8),
    written=st.integers(0, 8),
    steps=st.lists(step, min_size=1, max_size=5),
)
def test_both_tables_hold_what_the_oracle_says(
    old: list[tuple[str, int]], committed: int, written: int, steps: list[dict[str, Any]]
) -> None:
    # Something of the table is in the horizon; else it is refused.
    before = [("first", NOW_US), *((key, NOW_US - minutes * MINUTE_US) for key, minutes in old)]
    position = 1 + min(committed, len(old))
    behind = min(len(before), position + written)
    kafka, now = InMemoryKafka(), NOW_US
    kafka.create("payments", 1)
    kafka.send("payments", 0, *(payment(*message) for message in before))
    watermark = NOW_US - HOUR_US
    paid = old_job(before[:position], before[position:behind], watermark)
    batches: list[list[Message]] = [before[position:]]
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        path = Path(folder, "payments.duckdb")
        create(path, paid)
        ends = [
            ({"payments": {"0": end}}, watermark, end == position) for end in (position, behind)
        ]
        start = checkpoint(Path(folder, "old"), [ends[0], (*ends[1][:2], False)])
        flags: dict[str, Any] = {"start": start, "seed": SEED, "idle_timeout_us": None}
        files = Path(folder, "ids")
        process = ComparedWithTables(f"duckdb:{path}", files)
        for each in steps:
            now += each["later_us"]
            sent = [(key, now - minutes * MINUTE_US) for key, minutes in each["sent"]]
            kafka.send("payments", 0, *(payment(*message) for message in sent))
            batches[-1] += sent
            if each["is_new_process"]:
                process = ComparedWithTables(f"duckdb:{path}", files)
            if each["loses_files"]:
                for file in files.glob("*"):
                    file.unlink()
            settings = config(path, shards=each["shards"], dedup_layout=each["layout"], **flags)
            with patch.context() as killed:
                if each["dies_in"]:
                    killed.setattr(command, each["dies_in"], _die)
                with suppress(Died):
                    run(settings, now, ids=process)
            if each["dies_in"] != "read_and_write":
                batches.append([])
            # Later runs need no flags.
            flags = {"idle_timeout_us": None}
        run(config(path, **flags), now)
        payments, copies, late = expected(paid, batches, watermark)
        assert Counter(ids(path)) == payments
        assert Counter(ids(path, COPIES)) == copies
        assert len(ids(path, "SELECT reason FROM rejected_records")) == late
        assert failures(path) == []


def old_job(
    committed: Sequence[Message], written: Sequence[Message], watermark_us: int
) -> list[Message]:
    """What the old job's table holds: the first of each id, but for what is late in its second
    batch, which it has not committed.
    """
    paid: dict[str, int] = dict(reversed(committed))
    for key, time in written:
        if time >= watermark_us:
            paid.setdefault(key, time)
    return list(paid.items())


def expected(
    paid: Sequence[Message], batches: Sequence[Sequence[Message]], watermark_us: int
) -> tuple[Counter[str], Counter[str], int]:
    """Payments, copies and late records of our tables. batches: what each run has read."""
    latest: dict[str, int] = dict(paid)
    payments, copies, late = Counter[str](), Counter[str](), 0
    for batch in batches:
        start = watermark_us
        known = {
            key for key, time in latest.items() if expiry_of_bucket(time // BUCKET_US, 0) > start
        }
        for key, time in batch:
            if time < start:
                late += 1
                continue
            (copies if key in known else payments)[key] += 1
            known.add(key)
            latest[key] = max(time, latest.get(key, time))
            watermark_us = max(watermark_us, time - HOUR_US)
    return payments, copies, late


def create(path: Path, paid: Sequence[Message]) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE {OLD} (transaction_id VARCHAR, event_time TIMESTAMP)")
        connection.executemany(f"INSERT INTO {OLD} VALUES (?, make_timestamp(?))", paid)


def _die(*_: Any) -> None:
    raise Died
