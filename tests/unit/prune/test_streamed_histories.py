"""Findings of a review of `prune` beside streaming jobs: each test shows one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.check.command import check
from pipeline.prune import prune as prune_module
from pipeline.prune.plan import Nothing, PrunePlan
from pipeline.prune.prune import prune
from pipeline.run.command import run_until_caught_up
from tests.faults.dying import die_while_committing
from tests.support.in_memory_kafka import HOUR_US, NOW_US, InMemoryKafka
from tests.support.streaming.destination import duckdb_destination, expire, tamper
from tests.support.streaming.hand_over import Tables
from tests.support.streaming.keys import key_of_shard
from tests.support.streaming.log import HORIZON, TOPIC, Sent
from transforms.destinations.contract.ownership import last_stop
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.fingerprints import fingerprints_of, rejected_fingerprints, shards_of
from transforms.model.tables import REJECTED_SCHEMA


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Any]:
    with duckdb_destination(tmp_path) as opened:
        yield opened


def pruned(tables: Tables) -> Any:
    return prune(tables.real, NOW_US + 2 * HOUR_US, lambda: NOW_US).plan


def test_a_landmark_that_no_later_prune_needs_is_removed_by_it(
    destination: Any, kafka: InMemoryKafka
) -> None:
    """The first prune keeps the STOP, which lies before its border, for those who ask for the
    owner. The second one does not need it, and does not find it: the chain before the first
    border has a hole.
    """
    times = [9 * HORIZON * number for number in range(8)]
    tables = Tables(destination, kafka, [[Sent(f"k{time}", time) for time in times]], offered=[1])
    job(tables, 1)
    for end in (2, 3, 4):
        tables.offer([end])
        tables.run()
    assert tables.failures() == []
    first = pruned(tables)
    assert isinstance(first, PrunePlan), first
    assert tables.failures() == []
    job(tables, 5)
    for end in (6, 7, 8):
        tables.offer([end])
        tables.run()
    assert tables.failures() == []
    second = pruned(tables)
    assert isinstance(second, PrunePlan), second
    assert tables.failures() == []


def job(tables: Tables, end: int) -> None:
    """Reads up to there, and is stopped."""
    tables.offer([end])
    attempt = tables.attempt(tables.begin())
    attempt.bundle([(0, end - attempt.now.source.positions.get(0, 0))])
    tables.stop()


def test_a_job_that_begins_behind_the_check_of_a_prune_keeps_the_tables(
    destination: Any, kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [9 * HORIZON * number for number in range(6)]
    tables = Tables(destination, kafka, [[Sent(f"k{time}", time) for time in times]], offered=[1])
    for end in (1, 2, 3, 4):
        tables.offer([end])
        tables.run()
    original = check
    begun: list[Any] = []

    def slow(*given: Any, **named: Any) -> Any:
        yield from original(*given, **named)
        begun.append(tables.begin())

    with monkeypatch.context() as patch:
        patch.setattr(prune_module, "check", slow)
        with suppress(GuaranteeError, TryAgainLater):
            pruned(tables)
    tables.offer([6])
    tables.attempt(begun[0]).bundle([(0, 2)])
    with pytest.raises(GuaranteeError, match="owns the tables"):
        tables.run()


def test_rejected_records_go_whatever_clock_has_stamped_them(
    destination: Any, kafka: InMemoryKafka
) -> None:
    """A worker's clock is half an hour ahead. What it has rejected above the position of the STOP
    lies in the range of a run that was planned before that time.
    """
    shard = int(shards_of(rejected_fingerprints(_bad(2)), 2)[0])
    slow = 1 - shard
    log = [
        [Sent("a", 9 * HORIZON), Sent(key_of_shard(slow, 2), 18 * HORIZON), Sent(None, 0)]
        + [Sent("d", 27 * HORIZON), Sent("e", 36 * HORIZON), Sent("f", 45 * HORIZON)],
    ]
    tables = Tables(destination, kafka, log, processes=2, offered=[3])
    attempt = tables.attempt(tables.begin())
    attempt.settings = replace(attempt.settings, now_us=lambda: NOW_US + HOUR_US // 2)
    attempt.bundle([(0, 1)])
    attempt.bundle([(0, 2)], slow=slow)
    tables.stop()
    stop = last_stop(destination.runs.read())
    assert stop is not None and stop[1].ends_above() == {(TOPIC, 0): 3}
    assert [part.to_offset for part in stop[0].partitions] == [1]
    tables.run(max_records_per_run=1)
    assert tables.failures() == []
    # The run behind the stop passes over what the job has written, and is judged by the stop.
    assert isinstance(pruned(tables), Nothing)
    for end in (4, 5, 6):
        tables.offer([end])
        tables.run()
    assert tables.failures() == []
    second = pruned(tables)
    assert isinstance(second, PrunePlan), second
    assert tables.failures() == []


def _bad(offset: int) -> pa.RecordBatch:
    row = {"reason": "", "kafka_topic": TOPIC, "kafka_partition": 0, "kafka_offset": offset}
    return pa.RecordBatch.from_pylist([row], schema=REJECTED_SCHEMA)


def test_a_dead_prune_behind_a_repair_behind_a_stop_is_finished(
    destination: Any, kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repair marks windows as unobserved, and what they lack is in no record."""
    log = [[Sent("a", 0), Sent("b", 0), Sent("c", 0), Sent("d", 0)]]
    log[0] += [
        Sent("e", 9 * HORIZON),
        Sent("f", 18 * HORIZON),
        Sent("g", 27 * HORIZON),
        Sent("z", 0),
    ]
    tables = Tables(destination, kafka, log, processes=2, offered=[4])
    slow = int(shards_of(fingerprints_of(pa.array(["a"])), 2)[0])
    attempt = tables.attempt(tables.begin())
    attempt.bundle([(0, 4)], slow=slow)
    tables.stop()
    stop = last_stop(destination.runs.read())
    assert stop is not None and stop[1].ends_above()
    die_while_committing(1, tables.run, monkeypatch)
    expire(destination)
    tables.run()
    assert tables.failures() == []
    for end in (5, 6, 8):
        tables.offer([end])
        tables.run()
    assert tables.failures() == []
    die_while_committing(1, lambda: pruned(tables), monkeypatch)
    expire(destination)
    tables.run()
    pruned(tables)
    assert tables.failures() == []


def test_what_a_job_has_accepted_is_judged_as_such_when_its_stop_is_pruned(
    destination: Any, kafka: InMemoryKafka
) -> None:
    """An id came twice, beyond the horizon, above the position of the first STOP. The run that
    passed over both stays, and another job has been stopped behind it.
    """
    here, there = (key_of_shard(shard, 2) for shard in (0, 1))
    log = [
        [Sent(here, 0), Sent(there, 0), Sent(key_of_shard(1, 2, after=1), 9 * HORIZON)]
        + [Sent("z", 18 * HORIZON), Sent("q", 27 * HORIZON)],
        [Sent("e", 9 * HORIZON)],
    ]
    tables = Tables(destination, kafka, log, processes=2, offered=[3, 0])
    tables.attempt(tables.begin()).bundle([(0, 3)], slow=0)
    tables.stop()
    stop = last_stop(destination.runs.read())
    assert stop is not None and stop[1].ends_above() == {(TOPIC, 0): 3}
    # As Flink may do it, where one shard is slow: the support's runner waits for all of them.
    tamper(
        destination,
        f"UPDATE payment_transactions SET transaction_id = '{there}' WHERE kafka_offset = 2",
    )
    one = run_until_caught_up(tables.config(max_records_per_run=1), destination, lambda: NOW_US)
    next(iter(one))
    tables.offer([3, 1])
    tables.run()
    assert tables.failures() == []
    tables.offer([4, 1])
    tables.attempt(tables.begin()).bundle([(0, 1)])
    tables.stop()
    tables.offer([5, 1])
    tables.run()
    assert tables.failures() == []
    assert isinstance(pruned(tables), Nothing), "that stop is needed"
    assert tables.failures() == []
