"""Rows that `prune` removes: the questions before it, and the one change of rows that there is.

A row goes where its coordinate lies below the cut, and its id has no copy above it: a payment goes
together with all of its copies, so that every duplicate has its payment, and a cold start finds
each id that is still known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from transforms.model.coordinates import OffsetRange, TopicPartition


@dataclass(frozen=True)
class Cut:
    """Where the tables are cut.

    ranges: what lies below it, one range a partition. latest_us: no payment or duplicate of the
    ranges has a later event time, microseconds since 1970; None: there is none. ingested_until_us:
    no row of the ranges was written later. windows_before_us: windows that begin earlier lose their
    totals once none of their rows is left; in others, the totals of the removed rows are taken off
    by rows of their own.
    """

    ranges: tuple[OffsetRange, ...]
    latest_us: int | None
    ingested_until_us: int
    windows_before_us: int


class Pruning(Protocol):
    """Of one destination. The questions change nothing, and each answer is of one moment."""

    def first_since(self, event_time_us: int) -> Mapping[TopicPartition, int]:
        """Per partition the lowest offset of a payment or duplicate with this event time or a later
        one; a partition without such a row is absent.
        """

    def latest(self, ranges: tuple[OffsetRange, ...]) -> int | None:
        """The latest event time (microseconds) of the payments and duplicates in the ranges."""

    def rows_in(self, ranges: tuple[OffsetRange, ...]) -> pa.Table:
        """Runs of offsets that have a row in the ranges: `table_name`, `kafka_topic`,
        `kafka_partition`, `first_offset`, `last_offset`.
        """

    def kept_in(self, ranges: tuple[OffsetRange, ...]) -> pa.Table:
        """The same for the rows that stay: payments and duplicates of ids that have a duplicate
        outside of the ranges.
        """

    def gaps_in(self, ranges: tuple[OffsetRange, ...]) -> pa.Table:
        """Gaps that begin in the ranges: `kafka_topic`, `kafka_partition`, `first_offset`,
        `last_offset`, `cause`.
        """

    def totals_to_take_off(
        self, cut: Cut, amount_column: str | None, currency_column: str | None
    ) -> pa.RecordBatch:
        """Rows of `control_totals`, as the rows that go add up to them, of the windows whose totals
        stay. The columns are None where the schema has none.
        """

    def records_in_totals(self, cut: Cut) -> int:
        """Sum of `records` in the totals that go."""

    def refuse_fresh_rows(self) -> None:
        """Raises TryAgainLater where rows are too new to be removed; changes nothing."""

    def remove_gaps_and_totals(self, cut: Cut, still_mine: Callable[[], None]) -> None:
        """Removes the gaps of the cut that merely hold no record, and the totals that go.

        Where none is left nothing is changed: what a prune writes into these tables may be too new
        for it. still_mine: asked before each table; raises where the time for it is over.
        """

    def remove_rows(self, cut: Cut, still_mine: Callable[[], None]) -> None:
        """Removes the rows that go, a duplicate before its payment.

        Both changes may be made again, and go on where an earlier call has ended. Both raise
        TryAgainLater where rows are too new to be removed.
        """
