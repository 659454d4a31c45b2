"""Whole runs in this process: the messages that most tests send, and the tables they must lead to.

`path` is the DuckDB file of a test; it does not exist before the first run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.check.command import check
from pipeline.check.result import FAILED, CheckResult
from pipeline.options.config import RunConfig
from tests.support.in_memory_kafka import MARKER, InMemoryKafka, config, payment, table
from transforms.destinations.open import open_destination

IDS = "SELECT transaction_id FROM payment_transactions ORDER BY ALL"
COPIES = "SELECT transaction_id FROM duplicate_transactions ORDER BY ALL"

SENT = Counter({"a": 3, "b": 2, "c": 1, "d": 4, "e": 1, "f": 2})
"""transaction_id -> copies."""

Query = Callable[[str], list[tuple[Any, ...]]]
"""SQL on the tables of a destination -> rows."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "payments.duckdb"


def fill(kafka: InMemoryKafka) -> None:
    """13 payments over two partitions; then a broken record, a gap and a payment in each."""
    kafka.create("payments", 2)
    for number, transaction_id in enumerate(SENT.elements()):
        kafka.send("payments", number % 2, payment(transaction_id))
    for partition in range(2):
        kafka.send("payments", partition, b"broken", MARKER, payment(f"last-{partition}"))


def failed_checks(settings: RunConfig) -> list[CheckResult]:
    """The checks of `check` that fail on the destination of a run."""
    with open_destination(settings.destination, **settings.destination_options) as destination:
        return [
            result for result in check(destination, None, 100.0, 400) if result.status == FAILED
        ]


def failures(path: Path) -> list[CheckResult]:
    """The checks of `check` that fail on a DuckDB file."""
    return failed_checks(config(path))


def ids(path: Path, sql: str = IDS) -> list[str]:
    """The first column of a query on a DuckDB file, by default the ids of all payments."""
    return [row[0] for row in table(path, sql)]


def each_id_once(query: Query, sent: Counter[str]) -> None:
    """The tables hold each id once as a payment, and its further copies as duplicates."""
    assert [row[0] for row in query(IDS)] == sorted(sent)
    duplicates = Counter(row[0] for row in query(COPIES))
    assert duplicates == Counter({key: count - 1 for key, count in sent.items() if count > 1})


def all_of_it_once(query: Query, sent: Counter[str] = SENT, broken: int = 2) -> None:
    """The tables hold what `fill` sends, with `broken` rejected records."""
    each_id_once(query, sent + Counter(["last-0", "last-1"]))
    assert query("SELECT payload FROM rejected_records") == [(b"broken",)] * broken
    assert query("SELECT SUM(last_offset - first_offset + 1) FROM offset_gaps") == [(2,)]


def expire(path: Path, which: str = "TRUE") -> None:
    """Deletes write streams of a DuckDB file, committed ones as well, as a service does with all
    streams after some days.
    """
    for name in ("_write_stream_appends", "_write_streams"):
        table(
            path,
            f"DELETE FROM {name} WHERE stream IN (SELECT stream FROM _write_streams WHERE {which})",
        )
