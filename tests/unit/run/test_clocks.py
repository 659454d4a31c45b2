"""What an event time is held against, and the clocks that are believed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
)

from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    table,
)
from tests.support.whole_runs import IDS, ids
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.elements import LOG_APPEND_TIME
from transforms.model.errors import GuaranteeError
from transforms.model.moments import moment_in_words, span_in_words

REJECTED = "SELECT reason, detail FROM rejected_records ORDER BY kafka_offset"
EDGE = NOW_US + 5 * MINUTE_US
SECOND_US = 1_000_000
DAY_US = 24 * HOUR_US


@pytest.fixture
def topic(kafka: InMemoryKafka) -> InMemoryKafka:
    kafka.create("payments", 1)
    return kafka


@pytest.mark.parametrize(
    "kafka_us",
    [0, 1000, NOW_US // 1000, NOW_US - DAY_US, NOW_US - 31 * DAY_US, NOW_US + DAY_US, -1000],
    ids=["0", "1", "seconds", "yesterday", "a month ago", "tomorrow", "negative"],
)
@pytest.mark.parametrize("kind", [TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE])
def test_a_timestamp_that_the_producer_has_written_proves_nothing(
    topic: InMemoryKafka, path: Path, kind: int, kafka_us: int
) -> None:
    topic.send(
        "payments",
        0,
        payment("now"),
        payment("edge", EDGE),
        payment("beyond", EDGE + 1),
        timestamp_us=kafka_us,
        timestamp_type=kind,
    )
    run(config(path))
    assert ids(path) == ["edge", "now"]
    assert [reason for reason, _ in table(path, REJECTED)] == ["future_event_time"]


def test_each_record_is_judged_by_the_type_of_its_own_timestamp(
    topic: InMemoryKafka, path: Path
) -> None:
    """A topic's message.timestamp.type may change, so one block may hold both types."""
    yesterday = NOW_US - DAY_US
    for kind in (TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME) * 2:
        topic.send(
            "payments",
            0,
            b"broken",
            payment(f"{kind} now"),
            payment(f"{kind} edge", yesterday + 5 * MINUTE_US),
            timestamp_us=yesterday,
            timestamp_type=kind,
        )
    run(config(path))
    assert set(ids(path)) == {"1 now", "1 edge", "2 edge"}
    rejected = "SELECT transaction_id FROM rejected_records WHERE reason = 'future_event_time'"
    assert table(path, rejected) == [("2 now",), ("2 now",)]


def test_a_broker_whose_clock_is_ahead_allows_no_more_than_this_machine(
    topic: InMemoryKafka, path: Path
) -> None:
    values = payment("edge", EDGE), payment("beyond", EDGE + 1)
    topic.send(
        "payments",
        0,
        *values,
        timestamp_us=NOW_US + DAY_US,
        timestamp_type=TIMESTAMP_LOG_APPEND_TIME,
    )
    run(config(path))
    assert ids(path) == ["edge"]


def test_the_type_of_the_broker_is_librdkafkas() -> None:
    assert LOG_APPEND_TIME == TIMESTAMP_LOG_APPEND_TIME


def test_details_are_in_words(topic: InMemoryKafka, path: Path) -> None:
    topic.send("payments", 0, payment("seen"))
    run(config(path))
    topic.send("payments", 0, payment("f", NOW_US + 192 * MINUTE_US))
    topic.send(
        "payments",
        0,
        payment("k", NOW_US - HOUR_US + 330 * SECOND_US),
        timestamp_us=NOW_US - HOUR_US,
        timestamp_type=TIMESTAMP_LOG_APPEND_TIME,
    )
    topic.send("payments", 0, payment("l", NOW_US - 74 * HOUR_US))
    run(config(path))
    assert table(path, REJECTED) == [
        (
            "future_event_time",
            "event_time 2026-09-21T17:25:20Z is 3 h 12 min ahead of the clock of this run,"
            " 2026-09-21T14:13:20Z; --max_future_skew allows 5 min",
        ),
        (
            "future_event_time",
            "event_time 2026-09-21T13:18:50Z is 5 min 30 s ahead of the moment when Kafka appended"
            " it, 2026-09-21T13:13:20Z; --max_future_skew allows 5 min",
        ),
        (
            "late",
            "event_time 2026-09-18T12:13:20Z is 3 d 1 h behind the watermark of its partition,"
            " 2026-09-21T13:13:20Z",
        ),
    ]


@pytest.mark.parametrize(
    ("micros", "words"),
    [
        (0, "0 us"),
        (1, "1 us"),
        (999, "999 us"),
        (1500, "1 ms 500 us"),
        (60_000_000, "1 min"),
        (3_599_999_999, "59 min 59 s"),
        (10_800_000_001, "3 h"),
        (400 * DAY_US * 10, "4,000 d"),
    ],
)
def test_spans_in_words(micros: int, words: str) -> None:
    assert span_in_words(micros) == words


def test_moments_in_words_are_of_any_year() -> None:
    assert moment_in_words(NOW_US + 1) == "2026-09-21T14:13:20.000001Z"
    assert moment_in_words(-62_135_596_800_000_000 - DAY_US) == "0000-12-31T00:00:00Z"


# The clock of this machine, against that of the runs before it and that of the destination.


def refused(settings: Any, now_us: int, before: Callable[[], Any]) -> str:
    """The message of a run that is refused and has changed nothing."""
    found = before()
    with pytest.raises(GuaranteeError) as refusal:
        run(settings, now_us)
    assert before() == found
    return refusal.value.message


@pytest.mark.parametrize("status", ["COMMITTED", "genesis alone"])
def test_a_clock_far_before_the_last_plans_refuses(
    topic: InMemoryKafka, path: Path, status: str
) -> None:
    if status == "COMMITTED":
        topic.send("payments", 0, payment("a"))
    run(config(path))
    topic.send("payments", 0, payment("b"))
    ledger = "SELECT run_id, status FROM pipeline_runs"
    message = refused(config(path), EDGE - 600 * SECOND_US - 1, lambda: table(path, ledger))
    assert "2026-09-21T14:08:19.999999Z, 5 min behind the time of the last run" in message
    assert "--max_future_skew=5m allows less" in message
    assert "--max_future_skew=6m" in message
    run(config(path), NOW_US - 5 * MINUTE_US)
    assert ("b",) in table(path, IDS)


def test_a_slow_clock_is_refused_before_a_dead_run_is_finished_or_a_column_added(
    topic: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.run import command

    topic.send("payments", 0, payment("a"))

    def die(*_: Any) -> None:
        raise RuntimeError("died while it became visible")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="died"):
        patch.setattr(command, "commit", die)
        run(config(path))
    refused(
        config(path),
        NOW_US - HOUR_US,
        lambda: table(path, "SELECT run_id, status FROM pipeline_runs"),
    )
    run(config(path))
    assert ids(path) == ["a"]


def test_a_clock_that_is_set_back_between_two_transactions_stops_the_run(
    topic: InMemoryKafka, path: Path
) -> None:
    from pipeline.run.command import run_until_caught_up

    topic.send("payments", 0, *(payment(f"id-{number}") for number in range(4)))
    now = [NOW_US]
    with DuckDBDestination(str(path)) as destination:
        records = run_until_caught_up(
            config(path, max_records_per_run=2), destination, lambda: now[0]
        )
        next(records)
        now[0] = NOW_US - HOUR_US
        with pytest.raises(GuaranteeError, match="1 h behind the time of the last run"):
            next(records)
    assert ids(path) == ["id-0", "id-1"]


def test_clocks_that_agree_to_a_second_are_one_clock(topic: InMemoryKafka, path: Path) -> None:
    strict = config(path, max_future_skew_us=0)
    topic.send("payments", 0, payment("a"))
    run(strict)
    run(strict, NOW_US - SECOND_US)
    with pytest.raises(GuaranteeError, match=re.escape("--max_future_skew=0s allows less")):
        run(strict, NOW_US - SECOND_US - 1)
