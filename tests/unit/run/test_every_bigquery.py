"""`run --every` into BigQuery: what a small run creates and asks, held against what is said."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from pipeline.run.every import Since, every_command
from pipeline.run.every_cost import check_every
from tests.bigquery_stand_in import BigQueryStandIn
from tests.support.bigquery import bigquery, failures
from tests.support.in_memory_kafka import NOW_US, InMemoryKafka, payment, use
from transforms.destinations.bigquery.limits import CREATE_STREAMS_PER_HOUR, SMALL_RUN
from transforms.destinations.contract.destination import SmallRun
from transforms.model.errors import UsageError


def test_a_small_run_takes_what_is_said_of_it_and_a_tick_with_nothing_new_takes_nothing(
    stand_in: BigQueryStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each run fills all tables: a payment, a duplicate, a rejected record."""
    kafka, now = InMemoryKafka(), 0.0
    use(kafka, monkeypatch)
    kafka.create("payments", 1)
    kafka.send("payments", 0, payment("a"), payment("a"), b"x")
    settings = replace(bigquery(stand_in), every_us=1_000_000 * 3, shards_given=False)
    calls: list[Counter[str]] = [Counter()]

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        calls.append(Counter(stand_in.calls))
        if len(calls) == 5:
            raise KeyboardInterrupt
        if len(calls) != 3:
            kafka.send("payments", 0, payment(f"b{len(calls)}"), payment("a"), b"x")

    with pytest.raises(KeyboardInterrupt):
        every_command(settings, Since(), lambda: now, sleep, lambda: NOW_US + int(now * 1e6))
    _, second, nothing_new, last = (after - before for before, after in pairwise(calls))
    assert nothing_new == Counter()
    for taken in (second, last):
        assert taken["CreateWriteStream"] <= SMALL_RUN.streams
        assert taken["jobs.insert"] <= SMALL_RUN.queries
    runs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [run["accepted"] for run in runs] == [1, 1, 1]
    assert all(run["bytes_billed"] >= SMALL_RUN.billed_bytes for run in runs)
    assert failures(stand_in) == []


def test_what_an_hour_and_a_day_take_is_said() -> None:
    said = check_every(10_000_000, SmallRun(6, 10, 100_000_000), CREATE_STREAMS_PER_HOUR)
    assert "2,160 write streams an hour of the 10,000 that are allowed" in said
    assert "86,400 queries a day, of which 864 GB are billed at least" in said


def test_an_interval_that_needs_too_many_streams_is_refused_with_one_that_does_not() -> None:
    with pytest.raises(UsageError, match=r"--every=2s: .* 10,800 an hour.* Use --every=3s or more"):
        check_every(2_000_000, SMALL_RUN, CREATE_STREAMS_PER_HOUR)
    check_every(3_000_000, SMALL_RUN, CREATE_STREAMS_PER_HOUR)
