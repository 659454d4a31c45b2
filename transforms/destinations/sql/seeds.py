"""Ids of a table that is not ours, in every dialect; see contract/seed.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import pyarrow as pa

from transforms.destinations.contract.seed import Seed, SeedTable
from transforms.destinations.sql.dialect import Dialect
from transforms.destinations.sql.hashing import first_digits
from transforms.destinations.sql.totals import checksum
from transforms.model.errors import GuaranteeError
from transforms.model.moments import moment_in_words
from transforms.model.tables import EARLIEST_US, LATEST_US

Columns: TypeAlias = Mapping[str, str]
"""Column of a table -> its type, as the destination names it."""

_RESTORE: Final = (
    "Put it back as it was: cold starts need its ids until the watermark has passed"
    " {through}, and copies of them for as long as such copies are known."
)


class SqlSeeds:
    """contract/seed.py, for one destination.

    query: (text, parameters by name) -> answer. columns_of: name of a table -> its columns, None
    where there is none.
    """

    def __init__(
        self,
        dialect: Dialect,
        query: Callable[[str, Mapping[str, Any]], pa.Table],
        columns_of: Callable[[str], Columns | None],
    ) -> None:
        self._dialect = dialect
        self._query = query
        self._columns_of = columns_of

    def take(self, table: SeedTable, since_us: int, until_us: int) -> Seed:
        columns = self._columns_of(table.table)
        if problem := column_problem(self._dialect, table, columns):
            raise GuaranteeError(f"--seed_ids={table.table}: {problem}")
        assert columns is not None
        time_type = columns[table.event_time_column]
        (unknown,) = self._query(_without_time(self._dialect, table), {}).column("n").to_pylist()
        if unknown:
            raise GuaranteeError(
                f"--seed_ids={table.table}: {unknown:,} rows have an id and no"
                f" {table.event_time_column}, so it is unknown whether a copy of them can still"
                " come. Fill it in, or name a view without them."
            )
        found = self._figures(table, time_type, since_us, LATEST_US)
        if not found["n"]:
            raise GuaranteeError(
                f"--seed_ids={table.table}: no row has a {table.key_column} and a"
                f" {table.event_time_column} from {moment_in_words(since_us)} on, so there is no id"
                " that a copy could still come of. Name the table that the old job has written to,"
                " or leave --seed_ids out."
            )
        if found["latest"] > until_us:
            raise GuaranteeError(
                f"--seed_ids={table.table}: its latest {table.event_time_column} is"
                f" {moment_in_words(found['latest'])}, which --max_future_skew forbids. Correct"
                " such rows, or name a view without them."
            )
        return Seed(
            table=table.table,
            key_column=table.key_column,
            event_time_column=table.event_time_column,
            time_type=time_type,
            since_us=since_us,
            through_us=found["latest"],
            rows=found["n"],
            checksum=f"{found['checksum']:015x}",
        )

    def problem(self, seed: Seed) -> str | None:
        columns = self._columns_of(seed.table)
        found = column_problem(self._dialect, seed, columns)
        if found is None and columns is not None:
            now = columns[seed.event_time_column]
            if now != seed.time_type:
                found = f"its column {seed.event_time_column} was {seed.time_type}, and is {now}."
        if found is None:
            return None
        return f"{_named(seed)} cannot be read: {found} {_restore(seed)}"

    def check(self, seed: Seed) -> None:
        if change := self.change(seed):
            raise GuaranteeError(change)

    def change(self, seed: Seed) -> str | None:
        if problem := self.problem(seed):
            return problem
        found = self._figures(seed, seed.time_type, seed.since_us, seed.through_us)
        now = found["n"], f"{found['checksum'] or 0:015x}"
        if now == (seed.rows, seed.checksum):
            return None
        return (
            f"{_named(seed)} has changed: {found['n']:,} rows have an id and an event time"
            f" between {moment_in_words(seed.since_us)} and {moment_in_words(seed.through_us)},"
            f" and there were {seed.rows:,}, or other ids. Whoever still writes to it must be"
            f" stopped. {_restore(seed)}"
        )

    def _figures(self, table: SeedTable, time_type: str, since: int, through: int) -> Any:
        rows = seed_rows(self._dialect, table, time_type, str(since), str(through))
        digest = first_digits(self._dialect.digest("s.transaction_id"), 15)
        (found,) = self._query(
            f"""
SELECT COUNT(*) AS n, MAX({self._dialect.micros("s.event_time")}) AS latest,
    {checksum(self._dialect, digest)} AS checksum
FROM ({rows}) AS s""",
            {},
        ).to_pylist()
        return found


def seed_rows(dialect: Dialect, table: SeedTable, time_type: str, first: str, last: str) -> str:
    """Query for `transaction_id` and `event_time` (TIMESTAMP, UTC) of the rows that have an id.

    first, last: SQL of microseconds, both included. The bare column is compared, so that BigQuery
    leaves out partitions.
    """
    key, time = dialect.quoted(table.key_column), dialect.quoted(table.event_time_column)
    return f"""
    SELECT CAST({key} AS STRING) AS transaction_id,
        {dialect.as_moment(time, time_type)} AS event_time
    FROM {dialect.foreign_table(table.table)}
    WHERE {key} IS NOT NULL AND {dialect.within(time, time_type, first, last)}"""


def all_of_seed(dialect: Dialect, seed: Seed) -> str:
    """As `seed_rows`: whatever counts, however old."""
    return seed_rows(dialect, seed, seed.time_type, str(EARLIEST_US), str(seed.through_us))


def column_problem(dialect: Dialect, table: SeedTable, columns: Columns | None) -> str | None:
    """Why these columns cannot be a seed; None where they can."""
    if columns is None:
        return "there is no such table."
    for name, types in (
        (table.key_column, dialect.key_types),
        (table.event_time_column, dialect.time_types),
    ):
        if name not in columns:
            return f"it has no column {name}. --seed_key and --seed_event_time name its columns."
        if columns[name] not in types:
            return f"its column {name} is {columns[name]}; it must be {', '.join(types)}."
    return None


def _without_time(dialect: Dialect, table: SeedTable) -> str:
    key, time = dialect.quoted(table.key_column), dialect.quoted(table.event_time_column)
    return f"""
SELECT COUNT(*) AS n FROM {dialect.foreign_table(table.table)}
WHERE {key} IS NOT NULL AND {time} IS NULL"""


def _named(seed: Seed) -> str:
    return f"the table {seed.table}, whose ids count as paid since the first run (--seed_ids),"


def _restore(seed: Seed) -> str:
    return _RESTORE.format(through=moment_in_words(seed.through_us))
