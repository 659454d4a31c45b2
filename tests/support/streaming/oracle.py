"""What the three tables must hold once a log was read to its end, by dicts and loops."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tests.support.payments import MINUTE
from tests.support.streaming.destination import look
from tests.support.streaming.log import HORIZON, Sent, never_late
from transforms.model.tables import DUPLICATES, GAPS, PAYMENTS, REJECTED, ROW_TABLES, TOTALS_SCHEMA
from transforms.model.totals import add_up

Coordinate = tuple[int, int]


def rows_of(destination: Any) -> dict[str, list[tuple[Coordinate, Any]]]:
    """Table -> ((partition, offset), transaction_id)."""
    found = {}
    for table in ROW_TABLES:
        rows = look(
            destination,
            f"SELECT kafka_partition, kafka_offset, transaction_id FROM {table} ORDER BY ALL",
        )
        found[table] = [((partition, offset), key) for partition, offset, key in rows]
    return found


def gaps_of(destination: Any) -> list[Coordinate]:
    """Every offset of every gap."""
    rows = look(destination, f"SELECT kafka_partition, first_offset, last_offset FROM {GAPS}")
    return [
        (partition, offset) for partition, first, last in rows for offset in range(first, last + 1)
    ]


def compare(
    destination: Any, log: list[list[Sent]], start_watermarks: Mapping[int, int] | None = None
) -> None:
    """Every coordinate exactly once; what is broken is rejected and what is never late is not; each
    id is paid as often as it must be.

    start_watermarks: of partitions that were idle, or began at the minimum of the others because
    adopt found no payment of theirs.
    """
    marks = start_watermarks or {}
    tables = rows_of(destination)
    sent = {
        (partition, offset): record
        for partition, records in enumerate(log)
        for offset, record in enumerate(records)
    }
    times_written = Counter(coordinate for rows in tables.values() for coordinate, _ in rows)
    times_written.update(gaps_of(destination))
    assert times_written == Counter(list(sent))
    assert all(sent[coordinate].gap for coordinate in gaps_of(destination))
    assert all(key == sent[coordinate].key for rows in tables.values() for coordinate, key in rows)
    rejected = {coordinate for coordinate, _ in tables[REJECTED]}
    for partition in range(len(log)):
        for offset, on_time in enumerate(never_late(log, partition)):
            record = sent[partition, offset]
            allowed = not on_time or record.time < marks.get(partition, record.time)
            assert allowed or (partition, offset) not in rejected, "rejected although on time"
            assert (partition, offset) in rejected or record.key is not None or record.gap, (
                "broken, and not rejected"
            )
    payments = Counter(key for _, key in tables[PAYMENTS])
    copies = payments + Counter(key for _, key in tables[DUPLICATES])
    assert set(payments) == set(copies), "a copy without its payment"
    paid = Counter((key, sent[coordinate].time) for coordinate, key in tables[PAYMENTS])
    assert not paid or max(paid.values()) == 1, "two payments with one event time"
    highest = max(
        [
            0,
            *(record.time for record in sent.values() if record.key is not None),
            *(mark + HORIZON for mark in marks.values()),
        ]
    )
    for key, times in payments.items():
        earliest = min(record.time for record in sent.values() if record.key == key)
        if highest - HORIZON < (earliest // MINUTE + 1) * MINUTE:
            assert times == 1, (
                f"{key} is paid {times} times, although its copies lie within the horizon"
            )


def compare_totals(destination: Any, log: list[list[Sent]]) -> None:
    """control_totals add up to the tables, but for windows that are marked as unobserved since an
    adopt.
    """
    marked = (
        destination.query(destination.checks.unobserved_windows).column("window_start").to_pylist()
    )
    ranges = [("payments", partition, 0, len(records)) for partition, records in enumerate(log)]
    expected = destination.rows.present_totals(ranges, "amount", "currency").to_pylist()
    stored = destination.rows.totals_since(0, 0).select(TOTALS_SCHEMA.names)
    added = add_up(stored.to_batches()).to_pylist() if stored.num_rows else []
    observed = [
        [row for row in rows if f"{row['window_start']:%Y-%m-%d %H:%M:%S}" not in marked]
        for rows in (added, expected)
    ]
    assert sorted(map(str, observed[0])) == sorted(map(str, observed[1]))
