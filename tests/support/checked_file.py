"""A DuckDB file with rows of every kind, to be altered by hand and checked."""

from pathlib import Path

import duckdb
import pytest

from tests.support.in_memory_kafka import (
    HOUR_US,
    MARKER,
    MINUTE_US,
    NOW_US,
    InMemoryKafka,
    config,
    payment,
    run,
    use,
)


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with rows of every kind in every table. Not to be written to: copy it."""
    path = tmp_path_factory.mktemp("check") / "payments.duckdb"
    kafka = InMemoryKafka()
    with pytest.MonkeyPatch.context() as patch:
        use(kafka, patch)
        two_runs(kafka, path)
    return path


def two_runs(kafka: InMemoryKafka, path: Path) -> None:
    """Payments, copies, a late and broken messages and gaps, read by two runs."""
    kafka.create("payments", 2)
    late = payment("late", NOW_US - 2 * HOUR_US)
    b = payment("b", currency="USD")
    kafka.send(
        "payments", 0, payment("a"), b, payment("a"), MARKER, MARKER, b"broken", payment("c")
    )
    kafka.send("payments", 1, payment("d"), b, None, payment("e", NOW_US - MINUTE_US))
    run(config(path))
    kafka.send("payments", 0, payment("a"), payment("f"), late, MARKER)
    kafka.send("payments", 1, payment("f"), payment("g", currency="USD"), b"[]", payment("d"))
    run(config(path))


def tamper(path: Path, *statements: str) -> None:
    """Executes the statements on the file; each must alter something."""
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            assert connection.execute(statement).fetchone() != (0,), (
                f"nothing was altered by {statement}"
            )
