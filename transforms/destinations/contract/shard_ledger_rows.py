"""Rows of the shard ledger as columns of a table, and checks of the rows that were read.

Every destination whose shard ledger is an SQL table uses them; the SQL is each dialect's own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from transforms.destinations.contract.shard_ledger import (
    GAPS_SHARD,
    NOTHING,
    SHARD_LEDGER,
    TOTALS_SHARD,
    Epoch,
    Job,
    Offsets,
    Progress,
    ShardRow,
)
from transforms.model.errors import GuaranteeError

JSON_COLUMNS: Final = {
    "open_epochs": list[Epoch],
    "closed_rows": dict[str, int],
    "base": Progress,
    "latest": Progress,
}
"""Columns of JSON text -> their type: only the pipeline reads them, and two rows are compared as
texts.
"""

CHANGED: Final = ("nonce", "epoch", *JSON_COLUMNS)
"""Columns that `swap` sets."""


def all_shards(shards: int) -> list[int]:
    """The rows of a ledger for so many shards, sorted."""
    return sorted([GAPS_SHARD, TOTALS_SHARD, *range(shards)])


def are_of(rows: Sequence[ShardRow], shards: int) -> bool:
    """Whether these rows, sorted, are those of a ledger for so many shards."""
    return [row.shard for row in rows] == all_shards(shards)


def values_of_another_number(rows: Sequence[ShardRow], shards: int) -> dict[str, str]:
    """The columns of text that each row shard gets when their number changes; the nonce is empty.

    rows: the whole ledger. A row counts for nothing but what all have passed: an id is in another
    shard now, and what the streams of each have taken is no number of any of the new ones. Raises
    GuaranteeError where streams are open, whose rows no stop has looked for.
    """
    before = [row for row in rows if row.shard >= 0]
    open_ones = [row.shard for row in before if any(epoch.streams for epoch in row.open_epochs)]
    if open_ones:
        raise GuaranteeError(
            f"--shards={shards}: {SHARD_LEDGER} has {len(before)} shards, and streams of the shards"
            f" {open_ones} are open: a job that was not stopped may be writing to them. Use"
            f" --shards={len(before)}; `payment-pipeline stop` (`stop --lost` without its cluster)"
            " closes them, and a start with --from_tables may have another number then."
        )
    return first_values(Progress(0, "", _passed_by_all(before), {}, {}, {}))


def _passed_by_all(rows: Sequence[ShardRow]) -> Offsets:
    """Per partition the offset that every one of these shards had passed at its last recovery."""
    offsets = [row.latest.offsets for row in rows]
    return {
        topic: {
            partition: min(each[topic][partition] for each in offsets)
            for partition in partitions
            if all(partition in each.get(topic, {}) for each in offsets)
        }
        for topic, partitions in offsets[0].items()
    }


def job_of_stamps(stamps: Sequence[tuple[str, int]], job_id: str, follows: int) -> Job:
    """The job that has begun. stamps: the different (job_id, generation) that the rows carry then.

    Raises GuaranteeError where they are not this job's.
    """
    if list(stamps) != [(job_id, follows + 1)]:
        raise GuaranteeError(
            f"{SHARD_LEDGER}: job {job_id} was to follow generation {follows}, but the rows are"
            f" stamped {sorted(stamps)}: another job has begun."
            " Only one may write; stop the other one, and start again from its last checkpoint."
        )
    return Job(job_id, follows + 1)


def in_order_of(shards: Sequence[int], rows: Iterable[ShardRow]) -> list[ShardRow]:
    """The rows in the order of `shards`. Raises GuaranteeError when one has no row."""
    found = {row.shard: row for row in rows}
    if missing := [shard for shard in shards if shard not in found]:
        raise GuaranteeError(
            f"{SHARD_LEDGER} has no row for shard(s) {missing}: a job with another number of shards"
            " has begun, so the one that asks for them is superseded. Stop it."
        )
    return [found[shard] for shard in shards]


def changes(seen: Sequence[ShardRow], rows: Sequence[ShardRow]) -> list[dict[str, Any]]:
    """What `swap` writes: per row its columns, and `seen`, the nonce that it must have had."""
    return [
        {
            "shard": row.shard,
            "seen": before.nonce,
            "nonce": row.nonce,
            "epoch": row.epoch,
            **{name: _text(getattr(row, name)) for name in JSON_COLUMNS},
        }
        for before, row in zip(seen, rows, strict=True)
    ]


def first_values(latest: Progress = NOTHING) -> dict[str, str]:
    """The columns of text in the rows of a new ledger; the nonce is empty."""
    first = {"open_epochs": [], "closed_rows": {}, "base": NOTHING, "latest": latest}
    return {
        "ledger_id": secrets.token_hex(16),
        **{name: _text(first[name]) for name in JSON_COLUMNS},
    }


def row_of(columns: Mapping[str, Any]) -> ShardRow:
    """A row of the table by its columns' names; others than those of ShardRow are left out."""
    return ShardRow(
        **{
            name: msgspec.json.decode(columns[name], type=JSON_COLUMNS[name])
            if name in JSON_COLUMNS
            else columns[name]
            for name in ShardRow.__struct_fields__
        }
    )


def decode_epochs(text: str) -> list[Epoch]:
    """The column `open_epochs` of one row."""
    return msgspec.json.decode(text, type=list[Epoch])


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
