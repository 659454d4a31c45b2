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


def require_shards(found: Sequence[int], shards: int) -> None:
    """Raises GuaranteeError unless these sorted rows are those of so many shards."""
    if list(found) != all_shards(shards):
        raise GuaranteeError(
            f"--shards={shards}: {SHARD_LEDGER} of this destination has {len(found) - 2} shards. An"
            " id would meet a shard that does not know it;"
            f" use --shards={len(found) - 2}."
        )


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
            f"{SHARD_LEDGER} has no row for shard(s) {missing}: it was not created for this number"
            " of shards."
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


def first_values() -> dict[str, str]:
    """The columns of text in the rows of a new ledger; the nonce is empty."""
    first = {"open_epochs": [], "closed_rows": {}, "base": NOTHING, "latest": NOTHING}
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


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
