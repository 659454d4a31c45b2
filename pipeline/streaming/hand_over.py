"""What a stopped job hands over: totals that it owed, and gaps that it had not written.

Both go through streams that are registered in the shard ledger, so that another stop, or a job that
begins, closes them like those of a worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from transforms.destinations.appends import TableAppends
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import (
    GAPS_SHARD,
    TOTALS_SHARD,
    Job,
    Progress,
)
from transforms.model.coordinates import TopicPartition
from transforms.model.tables import GAPS, GAPS_SCHEMA, TOTALS, TOTALS_TABLE_SCHEMA
from transforms.model.totals import add_up
from transforms.stream.gaps import Gap
from transforms.stream.polling import Polling
from transforms.stream.recover_single import TakenOver, recover_single
from transforms.stream.refusals import ProveOrResend

Columns = tuple[str | None, str | None]
"""Of amount and currency, None where the schema has none."""


def write_owed_totals(
    destination: Destination, job: Job, owed: pa.RecordBatch, columns: Columns, polling: Polling
) -> None:
    """Writes what the job still owed to `control_totals`, where it is exactly what they lack.

    owed: rows of TOTALS_SCHEMA. A key that lacks another amount is left alone: rows were written
    behind the savepoint, or an earlier stop has written its totals; in the first case its window is
    marked as unobserved afterwards.
    """

    def look(begin: Progress) -> pa.Table:
        return destination.rows.totals_since(begin.epoch, begin.next_offsets.get(TOTALS, 0))

    taken = recover_single(
        destination, job, TOTALS_SHARD, TOTALS, None, look, polling, passed_at_once=True
    )
    differences = destination.query(destination.checks.totals_differences(*columns, True))
    lacking = {_key(row): _lack(row) for row in differences.to_pylist()}
    exact = [
        row
        for row in add_up([owed]).to_pylist()
        if lacking.get(_key(row)) == (row["records"], row["amount"] or Decimal(0))
    ]
    position = [
        {"stream_epoch": taken.progress.epoch, "stream_offset": at} for at in range(len(exact))
    ]
    rows = [{**row, **written} for row, written in zip(exact, position, strict=True)]
    _append(destination, taken, TOTALS, rows, TOTALS_TABLE_SCHEMA, polling)


def write_pending_gaps(
    destination: Destination, job: Job, gaps: Sequence[Gap], polling: Polling
) -> None:
    """Writes the offsets of the gaps that are in no table and in no gap.

    Called when all streams of all shards are closed and their rows are visible, so that no process
    can write a record there any more.
    """

    def look(begin: Progress) -> pa.Table:
        return destination.rows.gaps_above(begin.offsets)

    taken = recover_single(destination, job, GAPS_SHARD, GAPS, None, look, polling)
    spans: dict[TopicPartition, list[Gap]] = {}
    for gap in gaps:
        spans.setdefault((gap.topic, gap.partition), []).append(gap)
    ranges = [
        (*where, min(gap.first for gap in its), max(gap.last for gap in its) + 1)
        for where, its in spans.items()
    ]
    present = destination.rows.present_offsets(ranges)
    # A gap that begins before a range may reach into it.
    written = destination.rows.present_gaps([(*where[:2], 0, where[3]) for where in ranges])
    rows = []
    for where, its in spans.items():
        known = [*present[where].values(), *(np.arange(a, b + 1) for a, b in written[where])]
        for gap in sorted(its, key=lambda gap: gap.first):
            left = np.setdiff1d(np.arange(gap.first, gap.last + 1), np.concatenate(known))
            known.append(left)
            rows += [
                {**_named(gap), "first_offset": int(run[0]), "last_offset": int(run[-1])}
                for run in np.split(left, np.flatnonzero(np.diff(left) > 1) + 1)
                if len(run)
            ]
    _append(destination, taken, GAPS, rows, GAPS_SCHEMA, polling)


def _append(
    destination: Destination,
    taken: TakenOver,
    table: str,
    rows: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    polling: Polling,
) -> None:
    """Writes the rows, waits until they are acknowledged, and closes the stream."""
    policy = ProveOrResend(destination.rows.count_present, polling)
    appends = TableAppends(destination.streams, table, policy, taken.stream, 0)
    if rows:
        appends.add(pa.RecordBatch.from_pylist(list(rows), schema=schema))
        appends.send()
        appends.settle(appends.added)
    destination.streams.finalize(taken.stream)


def _key(row: Mapping[str, Any]) -> tuple[str, str, str | None]:
    start = row["window_start"]
    text = start if isinstance(start, str) else f"{start:%Y-%m-%d %H:%M:%S}"
    return text, row["outcome"], row["currency"]


def _lack(row: Mapping[str, Any]) -> tuple[int, Decimal]:
    records, amounts = (
        [row[f"{name}_in_tables"] or 0, row[f"{name}_in_totals"] or 0]
        for name in ("records", "amount")
    )
    return records[0] - records[1], Decimal(amounts[0]) - Decimal(amounts[1])


def _named(gap: Gap) -> dict[str, Any]:
    return {"kafka_topic": gap.topic, "kafka_partition": gap.partition, "cause": gap.cause}
