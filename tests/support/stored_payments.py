"""What a DuckDB file holds, against what was sent."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pipeline.check.command import check
from pipeline.check.result import FAILED
from tests.support.payment_sender import Sent
from transforms.destinations.open import open_destination


def assert_each_payment_once(file: Path, sent: Sent) -> None:
    """Each id is paid once, its further copies are duplicates, broken records are rejected."""
    with open_destination(f"duckdb:{file}") as destination:
        paid = counted(destination, "payment_transactions")
        copies = counted(destination, "duplicate_transactions")
        rejected = destination.query("SELECT reason, payload FROM rejected_records").to_pylist()
        assert paid == Counter(dict.fromkeys(sent.ids, 1))
        assert copies == sent.ids - paid
        assert [row["payload"] for row in rejected] == [b"broken"] * sent.broken
    assert_no_check_fails(file)


def assert_no_check_fails(file: Path) -> None:
    """What `check` finds out without Kafka."""
    with open_destination(f"duckdb:{file}") as destination:
        results = list(check(destination, None, 100.0, 400))
    assert [result for result in results if result.status == FAILED] == []


def unobserved_windows(file: Path) -> list[str]:
    """Minutes without complete totals."""
    with open_destination(f"duckdb:{file}") as destination:
        found = destination.query(destination.checks.unobserved_windows)
    return [str(row["window_start"]) for row in found.to_pylist()]


def counted(destination: object, table: str) -> Counter[str]:
    """transaction_id -> rows."""
    found = destination.query(  # type: ignore[attr-defined]
        f"SELECT transaction_id, COUNT(*) AS copies FROM {table} GROUP BY ALL"
    )
    return Counter({row["transaction_id"]: row["copies"] for row in found.to_pylist()})
