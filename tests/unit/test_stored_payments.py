"""Payments that benchmarks write by SQL: to the pipeline they are those of a run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.stored_payments import add_payments, event_time_of, id_of
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
from tests.support.stored_payments import assert_no_check_fails

IDS = 3_000
SPAN_US = 50 * MINUTE_US


def test_they_are_accepted_by_the_ledger_and_known_to_the_next_run(
    kafka: InMemoryKafka, tmp_path: Path
) -> None:
    path = tmp_path / "payments.duckdb"
    kafka.create("loaded", 1)
    kafka.send("loaded", 0, payment("first"))
    run(config(path, topics=("loaded",)))
    add_payments(path, IDS, SPAN_US)
    assert_no_check_fails(path)
    number = IDS - 1
    then_us = event_time_of(number, IDS, NOW_US, SPAN_US)
    assert table(
        path,
        "SELECT epoch_us(event_time) FROM payment_transactions"
        f" WHERE transaction_id = '{id_of(number)}'",
    ) == [(then_us,)]

    kafka.create("payments", 1)
    kafka.send("payments", 0, payment(id_of(number), then_us), payment(id_of(1)), payment("new"))
    run(config(path, dedup_horizon_us=HOUR_US))
    assert table(path, "SELECT transaction_id FROM duplicate_transactions ORDER BY ALL") == sorted(
        [(id_of(number),), (id_of(1),)]
    )
    assert_no_check_fails(path)
