"""`shard_ledger` in BigQuery: which streams may hold rows of a shard, by DML only.
transforms/destinations/contract/shard_ledger.py is the contract.

The table is created together with all its rows by one CREATE TABLE AS SELECT: of two such
statements one fails, because the table is there, so nobody ever sees it half filled. Every change
is one UPDATE, and one DML statement is a transaction of its own: it changes all its rows or, when
it fails, none (https://cloud.google.com/bigquery/docs/data-manipulation-language). Two UPDATE
statements that change one row conflict under snapshot isolation: one has its effect, the other is
run again by BigQuery on what the first has left, or fails with no effect
(https://cloud.google.com/bigquery/docs/data-manipulation-language#dml_statement_conflicts). So an
UPDATE that compares nonces has its effect on the very rows that it compared. Plain INSERT
statements never conflict, so there is none.

Lists and counts are JSON in STRING columns: nobody but the pipeline reads them, and the comparison
of two ledgers is one of texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

from transforms.destinations.bigquery.parameters import array_of_structs
from transforms.destinations.bigquery.queries import Queries
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

_COLUMNS: Final = {
    "shard": "INT64 NOT NULL",
    "job_id": "STRING NOT NULL",
    "generation": "INT64 NOT NULL",
    "nonce": "STRING NOT NULL",
    "epoch": "INT64 NOT NULL",
    "epochs": "STRING NOT NULL",
    "base": "STRING NOT NULL",
    "latest": "STRING NOT NULL",
}
_CHANGE: Final = {
    "shard": "INT64", "seen": "STRING", "nonce": "STRING", "epoch": "INT64", "epochs": "STRING", "base": "STRING", "latest": "STRING",
}  # fmt: skip
_CHANGED: Final = ", ".join(
    f"{name} = c.{name}" for name in ("nonce", "epoch", "epochs", "base", "latest")
)


def create_statement(table: str, shards: int) -> str:
    """DDL with the rows of all shards in it. `table`: full name, quoted."""
    columns = ",\n    ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    none, nothing = _text([]), _text(NOTHING)
    return f"""CREATE TABLE {table} (
    {columns})
OPTIONS (description = 'one row per shard of streaming: who may write, and by which streams')
AS SELECT shard, '' AS job_id, 0 AS generation, '' AS nonce, 0 AS epoch, '{none}' AS epochs, '{nothing}' AS base, '{nothing}' AS latest
FROM UNNEST({_all_shards(shards)}) AS shard"""


class BigQueryShardLedger:
    """table: full name, quoted."""

    def __init__(self, queries: Queries, table: str) -> None:
        self._queries = queries
        self._table = table

    def require_shards(self, shards: int) -> None:
        """Raises GuaranteeError when the table was created for another number of shards."""
        found = sorted(
            self._queries.query(f"SELECT shard FROM {self._table}").column("shard").to_pylist()
        )
        if found != _all_shards(shards):
            raise GuaranteeError(
                f"--shards={shards}: {SHARD_LEDGER} of this destination has {len(found) - 2}"
                " shards. An id would meet a shard that does not know"
                f" it; use --shards={len(found) - 2}."
            )

    def begin_job(self, job_id: str, follows: int) -> Job:
        """One UPDATE of all rows. What it found is read back: another job's UPDATE, or an earlier
        one of this job whose answer was lost.
        """
        sql = f"UPDATE {self._table} SET job_id = @job_id, generation = @follows + 1 WHERE generation = @follows"
        self._queries.change(sql, {"job_id": job_id, "follows": follows}, "begin-job")
        found = self._queries.query(
            f"SELECT DISTINCT job_id, generation FROM {self._table}"
        ).to_pylist()
        stamps = sorted((row["job_id"], row["generation"]) for row in found)
        if stamps != [(job_id, follows + 1)]:
            raise GuaranteeError(
                f"{SHARD_LEDGER}: job {job_id} was to follow generation {follows}, but the rows are"
                f" stamped {stamps}: another job has begun."
                " Only one may write; stop the other one, and start again from its last checkpoint."
            )
        return Job(job_id, follows + 1)

    def read(self, shards: Sequence[int]) -> list[ShardRow]:
        """In the order of `shards`. Raises GuaranteeError when one has no row."""
        sql = f"SELECT shard, job_id, generation, nonce, epochs, base, latest FROM {self._table} WHERE shard IN UNNEST(@shards)"
        rows = self._queries.query(
            sql, [ArrayQueryParameter("shards", "INT64", list(shards))]
        ).to_pylist()
        found = {row["shard"]: _row(row) for row in rows}
        if missing := [shard for shard in shards if shard not in found]:
            raise GuaranteeError(
                f"{SHARD_LEDGER} has no row for shard(s) {missing}: it was not created for this"
                " number of shards."
            )
        return [found[shard] for shard in shards]

    def swap(self, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]) -> bool:
        """All rows or none, by one UPDATE whose condition counts the rows that are as they were
        seen.

        A lost answer is read back by the job's id. False also when every try met a change by
        somebody else. Raises GuaranteeError when BigQuery does not answer: then the nonces tell, at
        the next recovery.
        """
        if not rows:
            return True
        changed = self._queries.change(
            self._swap_sql(), _parameters(job, seen, rows), "swap-shards"
        )
        if changed not in (None, 0, len(rows)):
            raise GuaranteeError(
                f"{SHARD_LEDGER}: a change of {len(rows)} rows changed {changed}: a shard has two"
                " rows. Restore the ledger."
            )
        return bool(changed)

    def _swap_sql(self) -> str:
        return f"""UPDATE {self._table} AS l SET {_CHANGED}
FROM UNNEST(@changes) AS c
WHERE {_as_seen("l", "c")}
    AND (SELECT COUNT(*) FROM {self._table} AS k JOIN UNNEST(@changes) AS d ON {_as_seen("k", "d")}) = @wanted"""


def _as_seen(row: str, change: str) -> str:
    return f"{row}.shard = {change}.shard AND {row}.nonce = {change}.seen AND {row}.job_id = @job_id AND {row}.generation = @generation"


def _all_shards(shards: int) -> list[int]:
    return sorted([GAPS_SHARD, TOTALS_SHARD, *range(shards)])


def _parameters(
    job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]
) -> list[ScalarQueryParameter | ArrayQueryParameter]:
    changes = [
        {
            "shard": row.shard, "seen": before.nonce, "nonce": row.nonce, "epoch": len(row.epochs),
            "epochs": _text(row.epochs), "base": _text(row.base), "latest": _text(row.latest),
        }
        for before, row in zip(seen, rows, strict=True)
    ]  # fmt: skip
    return [
        array_of_structs("changes", _CHANGE, changes),
        ScalarQueryParameter("job_id", "STRING", job.job_id),
        ScalarQueryParameter("generation", "INT64", job.generation),
        ScalarQueryParameter("wanted", "INT64", len(rows)),
    ]


def _row(row: Mapping[str, Any]) -> ShardRow:
    progress = (msgspec.json.decode(row[name], type=Progress) for name in ("base", "latest"))
    epochs = msgspec.json.decode(row["epochs"], type=list[Epoch])
    return ShardRow(row["shard"], row["job_id"], row["generation"], row["nonce"], epochs, *progress)


def _text(value: list[Epoch] | Progress) -> str:
    return msgspec.json.encode(value).decode()
