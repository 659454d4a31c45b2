"""The seed: a table of ids that were paid before this pipeline, by another job.

Genesis names it, with the bound up to which it counts, and each record carries it on. Its ids are
paid ids to every cold start, until the watermark has passed them.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from transforms.destinations.contract.run_ledger import RunRecord

SEED: Final = "seed"
"""Key of a record's settings, with the fields of Seed; absent where there is none."""


class SeedTable(msgspec.Struct, frozen=True, kw_only=True):
    """Where the ids are. table: as the destination names it: PROJECT.DATASET.TABLE in BigQuery, a
    table of the same file in DuckDB. key_column, event_time_column: of the id and its event time.
    """

    table: str
    key_column: str
    event_time_column: str


class Seed(SeedTable, frozen=True, kw_only=True):
    """The ids that count, as genesis found them.

    time_type: of the event time's column. since_us: the earliest event time that the first run
    needed; through_us: the highest one that the table had then. Rows that come later do not count.
    Microseconds since 1970, both included. rows, checksum: of the rows with an id between the two;
    the sum of the first 60 bits of their ids' SHA-256, modulo 2^60, as hexadecimal digits.
    """

    time_type: str
    since_us: int
    through_us: int
    rows: int
    checksum: str

    def reaches(self, oldest_us: int) -> bool:
        """Whether an id of it may have this event time or a later one, in microseconds."""
        return self.through_us >= oldest_us

    def of_table(self) -> SeedTable:
        """Where the ids are, alone."""
        return SeedTable(
            table=self.table,
            key_column=self.key_column,
            event_time_column=self.event_time_column,
        )


class Seeds(Protocol):
    """What a destination can say of a seed. Changes nothing."""

    def take(self, table: SeedTable, since_us: int, until_us: int) -> Seed:
        """The seed that this table is now, from one event time on.

        until_us: no event time may lie behind it. Both in microseconds. Raises GuaranteeError where
        there is no such table, its columns cannot be used, a row with an id has no event time, or
        it has no id to take.
        """

    def problem(self, seed: Seed) -> str | None:
        """Why it cannot be read any more: the table or a column is gone, or has another type.

        None where nothing is known against it. No row is read.
        """

    def change(self, seed: Seed) -> str | None:
        """Why it cannot be read, or that its rows are not those of genesis; None: nothing of it.

        Reads the rows that count.
        """

    def check(self, seed: Seed) -> None:
        """Raises GuaranteeError where there is a `change`."""


def seed_of(record: RunRecord) -> Seed | None:
    """None where the destination was begun without a seed."""
    found = record.settings.get(SEED)
    return None if found is None else msgspec.convert(found, Seed)


def seed_in_settings(seed: Seed | None) -> dict[str, object]:
    """What a record's settings say of it, as they are read back; nothing where there is none."""
    return {} if seed is None else {SEED: msgspec.to_builtins(seed)}
