"""`shard_ledger` in BigQuery: which streams may hold rows of a shard, by DML only.

The table is created together with all its rows by one CREATE TABLE AS SELECT: of two such
statements one fails, because the table is there, so no process sees it half filled. Every change is
one UPDATE, and one DML statement is a transaction of its own: it changes all its rows or, when
it fails, none (https://cloud.google.com/bigquery/docs/data-manipulation-language). Two UPDATE
statements that change one row conflict under snapshot isolation: one has its effect, the other is
run again by BigQuery on what the first has left, or fails with no effect
(https://cloud.google.com/bigquery/docs/data-manipulation-language#dml_statement_conflicts). So an
UPDATE that compares nonces has its effect on the very rows that it compared. Plain INSERT
statements never conflict, so there is none: another number of shards is a MERGE that changes the
rows of totals and gaps in any case, and so conflicts like an UPDATE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.cloud.bigquery import ArrayQueryParameter, ScalarQueryParameter

from transforms.destinations.bigquery.limits import MAX_PARAMETER_BYTES
from transforms.destinations.bigquery.parameters import array_of_structs
from transforms.destinations.bigquery.queries import Queries
from transforms.destinations.bigquery.stop_marks import BigQueryStopMarks
from transforms.destinations.bigquery.tables import BigQueryTables
from transforms.destinations.contract import shard_ledger_rows
from transforms.destinations.contract.shard_ledger import SHARD_LEDGER, Job, ShardRow
from transforms.model.errors import GuaranteeError

_COLUMNS: Final = {
    "shard": "INT64 NOT NULL",
    "job_id": "STRING NOT NULL",
    "generation": "INT64 NOT NULL",
    "nonce": "STRING NOT NULL",
    "epoch": "INT64 NOT NULL",
    "ledger_id": "STRING NOT NULL",
    **dict.fromkeys(shard_ledger_rows.JSON_COLUMNS, "STRING NOT NULL"),
    "stop_mark": "STRING",
}
_CHANGE: Final = {
    "shard": "INT64",
    "seen": "STRING",
    "nonce": "STRING",
    "epoch": "INT64",
    **dict.fromkeys(shard_ledger_rows.JSON_COLUMNS, "STRING"),
}
_STAMP: Final = "job_id = @job_id, generation = @follows + 1, stop_mark = NULL"
_CHANGED: Final = ", ".join(f"{name} = c.{name}" for name in shard_ledger_rows.CHANGED)


def create_statement(table: str, shards: int) -> str:
    """DDL with the rows of all shards in it. `table`: full name, quoted."""
    columns = ",\n    ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    first = ", ".join(
        f"'{text}' AS {name}" for name, text in shard_ledger_rows.first_values().items()
    )
    return f"""CREATE TABLE {table} (
    {columns})
OPTIONS (description = 'one row per shard of streaming: who may write, and by which streams')
AS SELECT shard, '' AS job_id, 0 AS generation, '' AS nonce, 0 AS epoch, {first},
    CAST(NULL AS STRING) AS stop_mark
FROM UNNEST({shard_ledger_rows.all_shards(shards)}) AS shard"""


class BigQueryShardLedger(BigQueryStopMarks):
    """The shard ledger in a BigQuery table; see contract/shard_ledger.py.

    table: full name, quoted.
    """

    def __init__(self, queries: Queries, tables: BigQueryTables, table: str) -> None:
        super().__init__(queries, table)
        self._tables = tables

    def create(self, shards: int) -> None:
        self._tables.create_with_rows(SHARD_LEDGER, create_statement(self._table, shards))

    def begin_job(self, job_id: str, follows: int, shards: int) -> Job:
        """Stamps all rows by one statement, and reads the stamps back.

        They may be those of another job's statement, or of an earlier one of this job whose answer
        was lost. Rows that were read under the generation `follows` are changed under it, or not at
        all, so a number that differs is that of the rows that the MERGE finds.
        """
        rows, values = self.read_all(), {"job_id": job_id, "follows": follows}
        if rows[0].generation == follows and not shard_ledger_rows.are_of(rows, shards):
            first = shard_ledger_rows.values_of_another_number(rows, shards)
            values |= {"shards": list(range(shards)), **first}
            self._queries.change(self._renumber_sql(list(first)), values, "renumber-shards")
        else:
            sql = f"UPDATE {self._table} SET {_STAMP} WHERE generation = @follows"
            self._queries.change(sql, values, "begin-job")
        found = self._queries.query(f"SELECT DISTINCT job_id, generation FROM {self._table}")
        stamps = [(row["job_id"], row["generation"]) for row in found.to_pylist()]
        return shard_ledger_rows.job_of_stamps(stamps, job_id, follows)

    def read(self, shards: Sequence[int]) -> list[ShardRow]:
        sql = (
            f"SELECT {', '.join(ShardRow.__struct_fields__)} FROM {self._table}"
            " WHERE shard IN UNNEST(@shards)"
        )
        found = self._queries.query(sql, [ArrayQueryParameter("shards", "INT64", list(shards))])
        return shard_ledger_rows.in_order_of(
            shards, map(shard_ledger_rows.row_of, found.to_pylist())
        )

    def read_all(self) -> list[ShardRow]:
        columns = ", ".join(ShardRow.__struct_fields__)
        found = self._queries.query(f"SELECT {columns} FROM {self._table} ORDER BY shard")
        return [shard_ledger_rows.row_of(row) for row in found.to_pylist()]

    def swap(self, job: Job, seen: Sequence[ShardRow], rows: Sequence[ShardRow]) -> bool:
        """One UPDATE, whose condition counts the rows that are as they were seen.

        A lost answer is read back by the job's id. False also when every try met a change by
        another process. Raises GuaranteeError when BigQuery does not answer: then the next recovery
        learns from the nonces whether the change was made; and when the change does not fit one
        request.
        """
        if not rows:
            return True
        changes = shard_ledger_rows.changes(seen, rows)
        _require_room(changes, rows)
        changed = self._queries.change(self._swap_sql(), _parameters(job, changes), "swap-shards")
        if changed not in (None, 0, len(rows)):
            raise GuaranteeError(
                f"{SHARD_LEDGER}: a change of {len(rows)} rows changed {changed}: a shard has two"
                " rows. Restore the ledger."
            )
        return bool(changed)

    def _renumber_sql(self, names: Sequence[str]) -> str:
        """names: columns of text that each row shard gets."""
        sets = ", ".join(f"{name} = @{name}" for name in names)
        columns = ", ".join(("shard", "job_id", "generation", "nonce", "epoch", *names))
        values = ", ".join(f"@{name}" for name in names)
        return f"""MERGE {self._table} AS l
USING (
    SELECT shard FROM UNNEST(@shards) AS shard
    WHERE NOT EXISTS (SELECT 1 FROM {self._table} WHERE generation != @follows)
) AS wanted
ON l.shard = wanted.shard
WHEN MATCHED THEN UPDATE SET {_STAMP}, nonce = '', epoch = 0, {sets}
WHEN NOT MATCHED BY TARGET THEN
    INSERT ({columns}) VALUES (wanted.shard, @job_id, @follows + 1, '', 0, {values})
WHEN NOT MATCHED BY SOURCE AND l.generation = @follows AND l.shard < 0 THEN UPDATE SET {_STAMP}
WHEN NOT MATCHED BY SOURCE AND l.generation = @follows THEN DELETE"""

    def _swap_sql(self) -> str:
        return f"""UPDATE {self._table} AS l SET {_CHANGED}
FROM UNNEST(@changes) AS c
WHERE {_as_seen("l", "c")}
    AND (SELECT COUNT(*) FROM {self._table} AS k JOIN UNNEST(@changes) AS d
        ON {_as_seen("k", "d")}) = @wanted"""


def _as_seen(row: str, change: str) -> str:
    return (
        f"{row}.shard = {change}.shard AND {row}.nonce = {change}.seen"
        f" AND {row}.job_id = @job_id AND {row}.generation = @generation"
    )


def _parameters(
    job: Job, changes: Sequence[Mapping[str, Any]]
) -> list[ScalarQueryParameter | ArrayQueryParameter]:
    return [
        array_of_structs("changes", _CHANGE, changes),
        ScalarQueryParameter("job_id", "STRING", job.job_id),
        ScalarQueryParameter("generation", "INT64", job.generation),
        ScalarQueryParameter("wanted", "INT64", len(changes)),
    ]


def _require_room(changes: Sequence[Mapping[str, Any]], rows: Sequence[ShardRow]) -> None:
    size = sum(len(text) for change in changes for text in change.values() if isinstance(text, str))
    if size > MAX_PARAMETER_BYTES:
        raise GuaranteeError(
            f"{SHARD_LEDGER}: a change of {len(rows)} shards takes {size} bytes; one request of"
            f" BigQuery has room for {MAX_PARAMETER_BYTES}. A shard holds offsets of up to"
            f" {max(map(_partitions, rows))} partitions and has up to"
            f" {max(len(row.open_epochs) for row in rows)} claims that no recovery has closed."
            " Many claims: end what makes recoveries fail. Many partitions: stop the job, and start"
            " it again with --from_tables and fewer --shards."
        )


def _partitions(row: ShardRow) -> int:
    return sum(map(len, row.latest.offsets.values()))
