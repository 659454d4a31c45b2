"""When a run begins with the ids that the one before has left in memory, and when with those of
the tables: they are the same ids either way.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.run import command
from tests.support.in_memory_kafka import (
    HOUR_US,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
)
from tests.support.remembered_ids import ComparedWithTables
from tests.support.whole_runs import COPIES, IDS, expire, failures, ids
from transforms.destinations.duckdb.destination import DuckDBDestination
from transforms.model.errors import GuaranteeError

pytestmark = pytest.mark.usefixtures("one_topic")


def test_each_transaction_but_the_first_begins_with_what_the_one_before_has_left(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.send("payments", 0, *map(payment, "abcadb"))
    remembered = ComparedWithTables()
    assert len(run(config(path, max_records_per_run=2), ids=remembered)) == 3
    assert (remembered.loaded, remembered.used) == (1, 2)
    assert (ids(path), ids(path, COPIES)) == (list("abcd"), ["a", "b"])
    assert failures(path) == []


def test_a_run_of_another_process_in_between_is_noticed(kafka: InMemoryKafka, path: Path) -> None:
    remembered = ComparedWithTables()
    kafka.send("payments", 0, payment("a"))
    run(config(path), ids=remembered)
    kafka.send("payments", 0, payment("b"))
    run(config(path))
    kafka.send("payments", 0, payment("b"))
    run(config(path), ids=remembered)
    assert (remembered.loaded, remembered.used) == (2, 0)
    assert (ids(path), ids(path, COPIES)) == (["a", "b"], ["b"])


def test_a_copy_in_a_topic_that_is_named_again_meets_its_payment(
    kafka: InMemoryKafka, path: Path
) -> None:
    """Runs over A and B, ten over A alone, which let the watermark of A go on; then a copy in B."""
    for topic in "AB":
        kafka.create(topic, 1)
        kafka.send(topic, 0, payment("first", NOW_US))
    remembered = ComparedWithTables()
    run(config(path, topics=("A", "B")), ids=remembered)
    for number in range(10):
        time = NOW_US + number * 30 * MINUTE_US
        kafka.send("A", 0, payment(f"a{number}", time))
        run(config(path, topics=("A",)), time, ids=remembered)
    assert (remembered.loaded, remembered.used) == (1, 10)
    kafka.send("B", 0, payment("first", NOW_US))
    run(config(path, topics=("A", "B"), idle_timeout_us=None), time, ids=remembered)
    assert remembered.loaded == 2
    assert ids(path) == sorted(["first", *(f"a{number}" for number in range(10))])
    assert ids(path, COPIES) == ["first", "first"]
    assert failures(path) == []


def test_a_horizon_that_has_grown_loads_from_the_tables(kafka: InMemoryKafka, path: Path) -> None:
    remembered = ComparedWithTables()
    for time in (NOW_US, NOW_US + 2 * HOUR_US):
        kafka.send("payments", 0, payment(f"at {time}", time))
        run(config(path), time, ids=remembered)
    kafka.send("payments", 0, payment("c", time))
    run(config(path), time, ids=remembered)
    assert (remembered.loaded, remembered.used) == (1, 2)
    kafka.send("payments", 0, payment("d", time))
    run(config(path, dedup_horizon_us=2 * HOUR_US), time, ids=remembered)
    assert remembered.loaded == 2


def test_a_run_that_is_refused_late_leaves_what_is_remembered_as_it_was(
    kafka: InMemoryKafka, path: Path
) -> None:
    """Too many records would be rejected: it has judged and written, and nothing is visible."""
    remembered = ComparedWithTables()
    kafka.send("payments", 0, payment("a"))
    run(config(path), ids=remembered)
    kafka.create("other", 1)
    kafka.send("other", 0, payment("b"), b"broken", b"broken")
    both = ("payments", "other")
    with pytest.raises(GuaranteeError, match="--max_rejected_rate"):
        run(config(path, topics=both, max_rejected_rate=0.1), ids=remembered)
    run(config(path, topics=both), ids=remembered)
    assert (remembered.loaded, remembered.used) == (1, 2)
    assert (ids(path), ids(path, COPIES)) == (["a", "b"], [])


@pytest.mark.parametrize("which", ["TRUE", "table_name = 'payment_transactions'"])
def test_a_run_whose_streams_expired_and_its_repair_load_from_the_tables(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    remembered = ComparedWithTables()
    kafka.send("payments", 0, *map(payment, "ab"))
    run(config(path), ids=remembered)
    kafka.send("payments", 0, *map(payment, "acc"))
    with monkeypatch.context() as patch:
        patch.setattr(command, "commit", _die)
        with pytest.raises(SystemExit):
            run(config(path), ids=remembered)
    if which != "TRUE":
        _commit_duplicates(path)
    expire(path, which)
    run(config(path), ids=remembered)
    assert remembered.loaded == 2
    kafka.send("payments", 0, payment("c"))
    run(config(path), ids=remembered)
    assert remembered.used >= 1
    assert (ids(path), ids(path, COPIES)) == (list("abc"), ["a", "c", "c"])
    assert failures(path) == []


def test_a_repair_of_which_a_later_duplicate_is_visible(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cold start does not know its id; the tables know it by the time of the duplicate."""
    remembered = ComparedWithTables()
    kafka.send("payments", 0, payment("a"))
    run(config(path), ids=remembered)
    kafka.send("payments", 0, payment("c", NOW_US - 3 * MINUTE_US), payment("c", NOW_US))
    with monkeypatch.context() as patch:
        patch.setattr(command, "commit", _die)
        with pytest.raises(SystemExit):
            run(config(path), ids=remembered)
    _commit_duplicates(path)
    expire(path, "table_name = 'payment_transactions'")
    run(config(path), ids=remembered)
    assert (ids(path), ids(path, COPIES)) == (["a", "c"], ["c"])


def test_the_layout_that_does_not_tell_its_ids_leaves_nothing(
    kafka: InMemoryKafka, path: Path
) -> None:
    kafka.send("payments", 0, *map(payment, "abca"))
    remembered = ComparedWithTables()
    run(config(path, max_records_per_run=2, dedup_layout="per_key"), ids=remembered)
    assert (remembered.loaded, remembered.used) == (2, 0)
    assert (ids(path), ids(path, COPIES)) == (list("abc"), ["a"])


def test_the_tables_are_asked_once_for_all_transactions(
    kafka: InMemoryKafka, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    with DuckDBDestination(str(path)) as destination:
        original: Callable[..., Any] = type(destination.rows).live_ids

        def count(self: Any, *bounds: Any) -> Any:
            asked.append(bounds)
            return original(self, *bounds)

        monkeypatch.setattr(type(destination.rows), "live_ids", count)
    kafka.send("payments", 0, *map(payment, "abcadb"))
    run(config(path, max_records_per_run=1))
    assert len(asked) == 1
    assert ids(path, IDS) == list("abcd")


def _die(*_: Any) -> None:
    raise SystemExit


def _commit_duplicates(path: Path) -> None:
    """A part of the PREPARED run becomes visible: it is to be repaired."""
    with DuckDBDestination(str(path)) as destination:
        record = destination.runs.read()[-1]
        for table in record.tables:
            if table.table == "duplicate_transactions":
                destination.streams.commit(table.table, table.commit_groups[0])
