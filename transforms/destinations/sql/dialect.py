"""What the SQL dialects of the destinations write differently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """One dialect: each function takes pieces of SQL and returns a piece of SQL.

    The texts in this folder are written with it, so that a question has one meaning in every
    destination. INT64, STRING, COUNTIF, CONCAT and SUBSTR mean the same in all dialects, and are
    written out. Moments are columns of type TIMESTAMP, in UTC.
    """

    table: Callable[[str], str]
    """Name of a table or view -> what names it in FROM."""

    aliased: Callable[[str, str], str]
    """(name of a table, alias) -> what stands in FROM for the table under that alias."""

    quoted: Callable[[str], str]
    """Name of a column that may be a keyword -> the name quoted."""

    parameter: Callable[[str], str]
    """Name of a parameter that holds one value -> the reference to it."""

    is_among: Callable[[str, str], str]
    """(value, name of a parameter that holds a list) -> condition that the list has the value."""

    given_rows: Callable[[str], str]
    """Name of a small table that travels with the question -> what stands for it in FROM."""

    ranges: str
    """What stands in FROM for the parameters of `visible_rows.range_parameters`.

    Columns: `kafka_topic`, `kafka_partition`, `from_offset`, `to_offset` (exclusive).
    """

    elements: Callable[[str, str], str]
    """(column that holds a list, alias) -> what stands in FROM for one row per element.

    The column's table stands before it in FROM; the alias names the element.
    """

    moment: Callable[[str], str]
    """Microseconds since 1970 -> the moment."""

    micros: Callable[[str], str]
    """A moment -> microseconds since 1970."""

    minute: Callable[[str], str]
    """A moment -> the start of its minute, exact in every century."""

    divide: Callable[[str, int], str]
    """(whole number that is not negative, divisor) -> the quotient without its remainder."""

    digest: Callable[[str], str]
    """A text -> SHA-256 of its UTF-8 as 64 hexadecimal digits in lower case."""

    unhex: Callable[[str], str]
    """Hexadecimal digits -> the bytes."""

    sum_modulo: Callable[[str, int], str]
    """(whole number, modulus) -> aggregate: the exact sum modulo the modulus, as INT64."""

    amount_type: str
    """Type of the amounts in the tables: 29 digits before the point and 9 behind it."""

    sum_type: str
    """Type that amounts are added up in."""

    rows_in_ranges: Callable[[str, str], str]
    """(query for rows with a coordinate, query for ranges of runs) -> FROM and what follows it.

    It gives each row, as `r`, with the one range that it lies in, as `f`, and leaves out rows in no
    range. Written for each destination, because costs differ: a plain join by the partition would
    compare every row with every run.
    """

    runs_of_rows: Callable[[str], str]
    """What stands in FROM for rows with a coordinate -> query for runs of offsets without a hole.

    The runs cover the same offsets: `kafka_topic`, `kafka_partition`, `first_offset`,
    `last_offset`. Written for each destination, because costs differ: of sorting all rows of a
    partition at once.
    """

    foreign_table: Callable[[str], str]
    """Name of a table that is not ours, as SeedTable has it -> what stands for it in FROM."""

    key_types: tuple[str, ...]
    """Types of a column of ids whose text, by CAST AS STRING, is that of the id in a message."""

    time_types: tuple[str, ...]
    """Types of a column of event times; those without a zone are in UTC."""

    as_moment: Callable[[str, str], str]
    """(column, its type among `time_types`) -> the moment."""

    within: Callable[[str, str, str, str], str]
    """(column, its type, first and last microseconds) -> condition on the bare column."""
