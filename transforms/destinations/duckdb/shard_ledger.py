"""The shard ledger in DuckDB.

Every change is one transaction, and its function below is what happens within it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import duckdb
import pyarrow as pa

from transforms.destinations.contract import shard_ledger_rows
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER, Job, ShardRow
from transforms.destinations.contract.shard_ledger_rows import CHANGED
from transforms.destinations.duckdb.session import ChangesMet
from transforms.destinations.duckdb.stop_marks import DuckDBStopMarks

_DDL: Final = f"""CREATE TABLE IF NOT EXISTS {SHARD_LEDGER} (
    shard INTEGER PRIMARY KEY, job_id VARCHAR NOT NULL, generation BIGINT NOT NULL,
    nonce VARCHAR NOT NULL, epoch BIGINT NOT NULL, ledger_id VARCHAR NOT NULL,
    {", ".join(f"{name} JSON NOT NULL" for name in shard_ledger_rows.JSON_COLUMNS)},
    stop_mark VARCHAR)"""

_COLUMNS: Final = ShardRow.__struct_fields__

_CLAIMED: Final = (
    "l.shard = c.shard AND l.nonce = c.seen AND l.job_id = $job_id AND l.generation = $generation"
)

_SWAP: Final = f"""
UPDATE {SHARD_LEDGER} AS l SET {", ".join(f"{name} = c.{name}" for name in CHANGED)}
FROM _changes AS c
WHERE {_CLAIMED}
    AND (SELECT COUNT(*) FROM {SHARD_LEDGER} AS l, _changes AS c WHERE {_CLAIMED}) = $wanted
RETURNING l.shard
"""


class DuckDBShardLedger(DuckDBStopMarks):
    """The shard ledger in a DuckDB file; see contract/shard_ledger.py."""

    def create(self, shards: int) -> None:
        self._session.atomically(lambda cursor: create(cursor, shards))

    def begin_job(self, job_id: str, follows: int, shards: int) -> Job:
        try:
            return self._session.atomically(
                lambda cursor: begin_job(cursor, job_id, follows, shards)
            )
        except ChangesMet:
            # Two changes of one row met, and the other one has been let through.
            return _job_of_stamps(self._session.cursor(), job_id, follows)

    def read(self, shards: Sequence[int]) -> list[ShardRow]:
        wanted = "WHERE shard IN (SELECT unnest(?::INTEGER[]))"
        found = _rows(self._session.cursor(), wanted, list(shards))
        return shard_ledger_rows.in_order_of(shards, found)

    def read_all(self) -> list[ShardRow]:
        return _rows(self._session.cursor())

    def swap(self, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]) -> bool:
        try:
            return self._session.atomically(lambda cursor: swap(cursor, job, seen, rows))
        except ChangesMet:
            # Two changes of one row met: DuckDB lets one through and refuses the other.
            return False


def create(cursor: duckdb.DuckDBPyConnection, shards: int) -> None:
    """Creates the table with its rows, if it has none."""
    cursor.execute(_DDL)
    if not cursor.execute(f"SELECT 1 FROM {SHARD_LEDGER} LIMIT 1").fetchall():
        _insert(cursor, shard_ledger_rows.all_shards(shards), 0, shard_ledger_rows.first_values())


def _rows(cursor: duckdb.DuckDBPyConnection, where: str = "", *values: object) -> list[ShardRow]:
    """Those of the condition, in the order of their shards."""
    sql = f"SELECT {', '.join(_COLUMNS)} FROM {SHARD_LEDGER} {where} ORDER BY shard"
    cursor.execute(sql, values)
    return [
        shard_ledger_rows.row_of(dict(zip(_COLUMNS, row, strict=True))) for row in cursor.fetchall()
    ]


def begin_job(cursor: duckdb.DuckDBPyConnection, job_id: str, follows: int, shards: int) -> Job:
    """Stamps the rows that carry the generation `follows`; all rows must carry one stamp then."""
    rows = _rows(cursor)
    if rows[0].generation == follows and not shard_ledger_rows.are_of(rows, shards):
        _renumber(cursor, rows, shards)
    cursor.execute(
        f"UPDATE {SHARD_LEDGER} SET job_id = ?, generation = ?, stop_mark = NULL"
        " WHERE generation = ?",
        [job_id, follows + 1, follows],
    )
    return _job_of_stamps(cursor, job_id, follows)


def _job_of_stamps(cursor: duckdb.DuckDBPyConnection, job_id: str, follows: int) -> Job:
    stamps = cursor.execute(f"SELECT DISTINCT job_id, generation FROM {SHARD_LEDGER}").fetchall()
    return shard_ledger_rows.job_of_stamps(stamps, job_id, follows)


def _renumber(cursor: duckdb.DuckDBPyConnection, rows: Sequence[ShardRow], shards: int) -> None:
    """The row shards begin anew, so many of them."""
    first = shard_ledger_rows.values_of_another_number(rows, shards)
    kept = {row.shard for row in rows}
    cursor.execute(f"DELETE FROM {SHARD_LEDGER} WHERE shard >= ?", [shards])
    cursor.execute(
        f"UPDATE {SHARD_LEDGER} SET nonce = '', epoch = 0,"
        f" {', '.join(f'{name} = ?' for name in first)} WHERE shard >= 0",
        list(first.values()),
    )
    more = [shard for shard in range(shards) if shard not in kept]
    _insert(cursor, more, rows[0].generation, first)


def _insert(
    cursor: duckdb.DuckDBPyConnection,
    shards: Sequence[int],
    generation: int,
    first: Mapping[str, str],
) -> None:
    sql = (
        f"INSERT INTO {SHARD_LEDGER} VALUES (?, '', ?, '', 0, {', '.join('?' * len(first))}, NULL)"
    )
    for shard in shards:
        cursor.execute(sql, [shard, generation, *first.values()])


def swap(
    cursor: duckdb.DuckDBPyConnection, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]
) -> bool:
    """Changes the rows if all are as they were seen, else none; returns whether it did."""
    cursor.register("_changes", pa.Table.from_pylist(shard_ledger_rows.changes(seen, rows)))
    parameters = {"job_id": job.job_id, "generation": job.generation, "wanted": len(rows)}
    changed = cursor.execute(_SWAP, parameters).fetchall()
    cursor.unregister("_changes")
    return len(changed) == len(rows)
