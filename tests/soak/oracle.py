"""What the tables must hold, coordinate by coordinate, and what is different there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Final

from pipeline.check.command import check
from pipeline.check.result import FAILED
from tests.soak.sending import Coordinate, Log
from tests.soak.traffic import Record
from transforms.destinations.contract.destination import Destination
from transforms.model.tables import DUPLICATES, GAPS, PAYMENTS, REJECTED

_SHOWN: Final = 20

Rows = Callable[[str], list[dict[str, Any]]]


def differences(destination: Destination, log: Log, prefix: str = "") -> list[str]:
    """The first 20 differences between the tables and what was sent, and every failed check.

    prefix: of the names of tables, such as "dataset.".
    """

    def rows_of(table: str) -> list[dict[str, Any]]:
        return destination.query(f"SELECT * FROM {prefix}{table}").to_pylist()

    found = [*_of_rows(rows_of, log), *_of_gaps(rows_of, log)]
    failed = [
        f"check: {result.name}: {result.figure} {result.proof}"
        for result in check(destination, None, 100.0, 400)
        if result.status == FAILED
    ]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return [*found[:_SHOWN], *more, *failed]


def _of_rows(rows_of: Rows, log: Log) -> Iterator[str]:
    places: dict[Coordinate, list[str]] = {}
    paid: Counter[str | None] = Counter()
    for table in (PAYMENTS, DUPLICATES, REJECTED):
        for row in rows_of(table):
            coordinate = row["kafka_partition"], row["kafka_offset"]
            places.setdefault(coordinate, []).append(table)
            record = log.committed.get(coordinate)
            if record is None:
                state = "aborted" if coordinate in log.aborted else "never sent"
                yield f"{table} holds {coordinate}, which was {state}"
            elif wrong := _wrong(table, row, record):
                yield f"{table} {coordinate}: {wrong}"
            if table == PAYMENTS:
                paid[row["transaction_id"]] += 1
    for coordinate, record in sorted(log.committed.items()):
        if len(tables := places.get(coordinate, [])) != 1:
            yield f"{coordinate} lies in {tables or 'no table'}: {record}"
    on_time = {record.transaction_id for record in log.committed.values() if not record.reason}
    for key in sorted(on_time, key=str):
        if paid[key] != 1:
            yield f"{key} is paid {paid[key]} times"


def _wrong(table: str, row: dict[str, Any], record: Record) -> str | None:
    if (table == REJECTED) != (record.reason is not None):
        return f"does not belong here: {record}"
    if table == REJECTED:
        seen: tuple[Any, ...] = row["reason"], row["payload"]
        sent: tuple[Any, ...] = record.reason, record.value
    else:
        time_us = int(row["event_time"].timestamp() * 1_000_000 + 0.5)
        seen = row["transaction_id"], time_us, row["amount"]
        sent = record.transaction_id, record.event_us, Decimal(record.amount or "0")
    return None if seen == sent else f"{seen} instead of {sent}"


def _of_gaps(rows_of: Rows, log: Log) -> Iterator[str]:
    """Rows and gaps together hold each offset once: `check` sees to that. Here: the right ones."""
    gaps: set[Coordinate] = set()
    for row in rows_of(GAPS):
        offsets = range(row["first_offset"], row["last_offset"] + 1)
        gaps.update((row["kafka_partition"], offset) for offset in offsets)
    for coordinate in sorted(gaps & log.committed.keys()):
        yield f"{coordinate} is a gap, but was sent: {log.committed[coordinate]}"
    for coordinate in sorted(log.aborted.keys() - gaps):
        yield f"{coordinate} was aborted, but is no gap"
