"""The shard ledger in DuckDB. Each function is one step of
transforms/destinations/contract/shard_ledger.py, within the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa

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

_DDL: Final = f"""CREATE TABLE IF NOT EXISTS {SHARD_LEDGER} (
    shard INTEGER PRIMARY KEY, job_id VARCHAR NOT NULL, generation BIGINT NOT NULL, nonce VARCHAR NOT NULL, epoch BIGINT NOT NULL,
    epochs JSON NOT NULL, base JSON NOT NULL, latest JSON NOT NULL)"""

_COLUMNS: Final = "shard, job_id, generation, nonce, epochs, base, latest"

_CLAIMED: Final = (
    "l.shard = c.shard AND l.nonce = c.seen AND l.job_id = $job_id AND l.generation = $generation"
)

_SWAP: Final = f"""
UPDATE {SHARD_LEDGER} AS l SET nonce = c.nonce, epoch = c.epoch, epochs = c.epochs, base = c.base, latest = c.latest FROM _changes AS c
WHERE {_CLAIMED} AND (SELECT COUNT(*) FROM {SHARD_LEDGER} AS l, _changes AS c WHERE {_CLAIMED}) = $wanted
RETURNING l.shard
"""


def create(cursor: duckdb.DuckDBPyConnection, shards: int) -> None:
    cursor.execute(_DDL)
    found = [
        shard
        for (shard,) in cursor.execute(
            f"SELECT shard FROM {SHARD_LEDGER} ORDER BY shard"
        ).fetchall()
    ]
    wanted = sorted([GAPS_SHARD, TOTALS_SHARD, *range(shards)])
    if not found:
        rows = [(shard, _text([]), _text(NOTHING), _text(NOTHING)) for shard in wanted]
        cursor.executemany(f"INSERT INTO {SHARD_LEDGER} VALUES (?, '', 0, '', 0, ?, ?, ?)", rows)
    elif found != wanted:
        raise GuaranteeError(
            f"--shards={shards}: {SHARD_LEDGER} of this destination has {len(found) - 2} shards. An"
            " id would meet a shard that does not know it;"
            f" use --shards={len(found) - 2}."
        )


def begin_job(cursor: duckdb.DuckDBPyConnection, job_id: str, follows: int) -> Job:
    cursor.execute(
        f"UPDATE {SHARD_LEDGER} SET job_id = ?, generation = ? WHERE generation = ?",
        [job_id, follows + 1, follows],
    )
    stamps = cursor.execute(f"SELECT DISTINCT job_id, generation FROM {SHARD_LEDGER}").fetchall()
    if stamps != [(job_id, follows + 1)]:
        raise GuaranteeError(
            f"{SHARD_LEDGER}: job {job_id} was to follow generation {follows}, but the rows are"
            f" stamped {sorted(stamps)}: another job has begun."
            " Only one may write; stop the other one, and start again from its last checkpoint."
        )
    return Job(job_id, follows + 1)


def read(cursor: duckdb.DuckDBPyConnection, shards: Sequence[int]) -> list[ShardRow]:
    rows = cursor.execute(
        f"SELECT {_COLUMNS} FROM {SHARD_LEDGER} WHERE shard IN (SELECT unnest(?::INTEGER[]))",
        [list(shards)],
    ).fetchall()
    found = {row[0]: _row(row) for row in rows}
    if missing := [shard for shard in shards if shard not in found]:
        raise GuaranteeError(
            f"{SHARD_LEDGER} has no row for shard(s) {missing}: it was not created for this number"
            " of shards."
        )
    return [found[shard] for shard in shards]


def swap(
    cursor: duckdb.DuckDBPyConnection, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]
) -> bool:
    changes = [
        {
            "shard": row.shard, "seen": before.nonce, "nonce": row.nonce, "epoch": len(row.epochs),
            "epochs": _text(row.epochs), "base": _text(row.base), "latest": _text(row.latest),
        }
        for before, row in zip(seen, rows, strict=True)
    ]  # fmt: skip
    cursor.register("_changes", pa.Table.from_pylist(changes))
    parameters = {"job_id": job.job_id, "generation": job.generation, "wanted": len(rows)}
    changed = cursor.execute(_SWAP, parameters).fetchall()
    cursor.unregister("_changes")
    return len(changed) == len(rows)


def _row(values: tuple[Any, ...]) -> ShardRow:
    shard, job_id, generation, nonce, epochs, base, latest = values
    progress = msgspec.json.decode(base, type=Progress), msgspec.json.decode(latest, type=Progress)
    return ShardRow(
        shard, job_id, generation, nonce, msgspec.json.decode(epochs, type=list[Epoch]), *progress
    )


def _text(value: list[Epoch] | Progress) -> str:
    return msgspec.json.encode(value).decode()
