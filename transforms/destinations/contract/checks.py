"""What `check` and the summary of a run ask a destination, as texts in its SQL dialect.

The texts are in transforms/destinations/sql/checks.py. Where an answer must be judged by the
ledger, the question is only for the rows: the judgement is Python, written once
(pipeline/check/coordinates.py, pipeline/check/repeats.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final

from transforms.destinations.contract.seed import Seed
from transforms.model.tables import EARLIEST_US, LATEST_US

OFFSETS_PER_BLOCK: Final = 1 << 16
"""Offsets are looked at in blocks of this size.

So no sort and no join ever holds a whole partition at once, and many workers share it. The price is
one more row of `coordinate_runs` for every 65,536 offsets.
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True)
class CheckQueries:
    """Texts for `destination.query(text, parameters)`.

    A parameter `date` is written $date in DuckDB and @date in BigQuery. "The three tables" are
    payments, duplicates and rejected records. Times are microseconds since 1970 wherever they are
    numbers. Rows come in no particular order, unless it is said.
    """

    distinct_ids: str
    """Distinct ids and rows of the payments whose event time is within the bounds.

    Parameters `time_bounds(day)`. One row: `uniq` ids and `total` rows.
    """

    row_count: str
    """One row: `n`, the rows of the three tables together."""

    duplicate_rate: str
    """The average number of duplicates of a payment.

    Parameters `time_bounds(day)`. One row: `average` of dup_count as `deduplication_audit` has it,
    by the time of the first occurrence.
    """

    copies_of_repeated_ids: str
    """All rows of every id with several payments, at least one of them within the bounds.

    Parameters `time_bounds(day)`. Rows of payments and duplicates: `is_payment`, `transaction_id`,
    `event_time_us`, `kafka_topic`, `kafka_partition`, `kafka_offset`.
    """

    unpaid_ids: Callable[[Seed | None], str]
    """Returns the query for `n`, the ids that have a row in duplicates and none in payments.

    Called with a seed: none there either.
    """

    unpaid_duplicates: Callable[[Seed | None], str]
    """Of those ids the ones whose fingerprint nothing paid has either: `transaction_id`, and
    `copies`, their rows in duplicates; sorted by the id. An id that shares its fingerprint with
    another one is a duplicate of that one's payment.
    """

    copies_of_seed: Callable[[Seed], str]
    """All rows of every id that has a payment and is in the seed, with the one of the seed.

    Columns of `copies_of_repeated_ids`. The row of the seed is a payment, of the latest event time
    of the id there; its topic is empty, partition and offset are -1.
    """

    coordinate_runs: str
    """Runs of offsets without a hole, over the three tables together.

    Columns: `kafka_topic`, `kafka_partition`, `first_offset`, `last_offset`, and `n`, the number of
    rows: more than last - first + 1 exactly if a coordinate repeats. A run ends at a block's border
    (OFFSETS_PER_BLOCK).
    """

    repeated_coordinates: str
    """Coordinates with more than one row in the three tables.

    Columns: `kafka_topic`, `kafka_partition`, `kafka_offset`, `n`, and `tables`, the names of the
    tables that hold the rows, one for each row, sorted.
    """

    gaps: str
    """The rows of `offset_gaps`.

    Columns: `kafka_topic`, `kafka_partition`, `first_offset`, `last_offset`.
    """

    gap_offsets: str
    """Parameters `range_parameters`. For each topic whose ranges have offsets in gaps:
    `kafka_topic`, and their number `offsets`.
    """

    accepted_losses: str
    """For each partition with gaps of the cause `deleted`: `kafka_topic`, `kafka_partition`,
    `first_offset` of the first one, `last_offset` of the last one, and `offsets`, how many lie in
    them; sorted by partition.
    """

    rejections: str
    """Parameters `range_parameters`, and `first_time` and `last_time` of `ingest_times`. Rejected
    rows in the ranges: `kafka_topic`, `reason`, `detail`, their number `records`, and `example`, a
    coordinate of one of them, topic:partition:offset.
    """

    rows_by_run: str
    """COMMITTED runs and tables whose number of rows is not what the ledger says.

    The tables are the three, and the gaps. Columns: `run_id`, `table_name`, `rows_in_ledger`,
    `rows_in_table`, NULL for none; sorted by the first two. A row belongs to the run in whose range
    its coordinate lies.
    """

    highest_event_times: str
    """The latest event time of each COMMITTED run and partition with a payment or duplicate.

    Columns: `run_id`, `kafka_topic`, `kafka_partition`, `highest_us`, the latest event time over
    both tables. A row belongs to the run in whose range its coordinate lies.
    """

    reasons: str
    """Rejected rows of the runs with these plan times, counted by reason.

    Parameters `ingest_times(plan times)`. Columns: `reason`, and their number `n`.
    """

    unobserved_windows: str
    """Windows that are marked as having no complete totals, each once.

    Column: `window_start`, as `totals_differences` writes it.
    """

    totals_differences: Callable[[str | None, str | None, bool], str]
    """Returns the query for windows whose totals are not what the three tables add up to.

    Called with the amount's and the currency's column (None where the schema has none), and whether
    a PREPARED run counts. Rows of the query, sorted: `window_start` as text, `outcome`, `currency`,
    `records_in_totals`, `records_in_tables`, `amount_in_totals`, `amount_in_tables`, `same_ids`.
    """


def time_bounds(day: str | None) -> dict[str, Any]:
    """Parameters `first_time` and `last_time`, inclusive, in microseconds since 1970.

    day: YYYY-MM-DD in UTC; None for all times that a table can hold.

    There are always bounds, and never `date IS NULL OR ...`: a comparison of the bare column is
    what lets BigQuery leave out partitions.
    """
    if day is None:
        return {"first_time": EARLIEST_US, "last_time": LATEST_US}
    start = datetime.combine(date.fromisoformat(day), datetime.min.time(), timezone.utc)
    first = (start - _EPOCH) // _MICROSECOND
    return {"first_time": first, "last_time": first + timedelta(days=1) // _MICROSECOND - 1}


def ingest_times(plan_times: Sequence[int]) -> dict[str, Any]:
    """Parameters `times`, and `first_time` and `last_time` around them.

    The bounds let BigQuery leave out partitions. plan_times: microseconds, not empty.
    """
    return {"times": list(plan_times), "first_time": min(plan_times), "last_time": max(plan_times)}
