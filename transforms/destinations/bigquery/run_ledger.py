"""`pipeline_runs` in BigQuery: the chain of run records, by DML only.

The table is created together with its first row, the root, by one CREATE TABLE AS SELECT: of two
such statements one fails, so there is one root. Every claim is one MERGE that changes the
predecessor's row and inserts the new record. Two MERGE statements that change one row conflict
under snapshot isolation: one of them has its effect, the other sees it or fails
(https://cloud.google.com/bigquery/docs/data-manipulation-language#dml_statement_conflicts). Plain
INSERT statements never conflict, so there is none.

The table has a partition for each day of plan times, for questions and statements are billed by the
partitions that their conditions leave
(https://cloud.google.com/bigquery/docs/querying-partitioned-tables,
https://cloud.google.com/bigquery/docs/using-dml-with-partitioned-tables). Tables of the first
versions have none, and answer the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa

from transforms.destinations.bigquery.parameters import parameter
from transforms.destinations.bigquery.queries import Queries
from transforms.destinations.bigquery.run_rows import (
    COLUMNS,
    ROOT,
    SELECT,
    VALUES,
    parameters_of,
    to_record,
)
from transforms.destinations.contract.chain import in_order, removed_before
from transforms.destinations.contract.run_ledger import ABORTED, PREPARED, RunRecord
from transforms.destinations.contract.run_tail import (
    Landmark,
    LinkedRecord,
    read_backwards,
    read_tail,
)
from transforms.model.errors import GuaranteeError, TryAgainLater
from transforms.model.tables import RUNS

_FORGOTTEN_AT_ONCE: Final = 50_000
"""Their names are a parameter; MAX_PARAMETER_BYTES in limits.py."""

_HOUR_US: Final = 3_600_000_000
_RECENT_US: Final = 3 * _HOUR_US
"""How far a run looks back first from now, mostly into one partition."""

_BEFORE: Final = ((72 * _HOUR_US, 64), (1440 * _HOUR_US, 4096))
"""How far it looks back then from the newest plan time, and at how many records.

Where runs are that far apart, a ledger is small. Clocks of several machines may be apart by
--max_future_skew, so the end of the chain may lie behind some records with later plan times.
"""


class BigQueryRunHistory:
    """The chain, to be read.

    ask: (text, parameters by name) -> answer. table: what names it in FROM.
    """

    def __init__(self, ask: Callable[[str, Mapping[str, Any]], pa.Table], table: str) -> None:
        self._ask = ask
        self._table = table
        self._plan_times = {ROOT: 0}

    def read(self) -> list[RunRecord]:
        found = self._ask(f"{SELECT} {self._table}", {}).to_pylist()
        roots = [row["successor"] for row in found if row["run_id"] == ROOT]
        chain = in_order(_linked(found))
        if found and (len(roots) != 1 or (roots[0] is None) != (not chain)):
            raise GuaranteeError(
                f"{RUNS}: the chain breaks behind {ROOT}: {len(roots)} rows {ROOT}, and"
                f" {len(chain)} records. Restore the ledger."
            )
        return chain

    def tail(self) -> list[RunRecord]:
        found = read_tail(self)
        self._plan_times |= {record.run_id: record.plan_time for record in found[-2:]}
        return found

    def backwards(self) -> Iterator[RunRecord]:
        return read_backwards(self)

    def newest(self) -> Iterator[list[LinkedRecord]]:
        """By plan time, of which the partitions are; BigQuery's clock tells where to begin."""
        now = f"TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL {_RECENT_US} MICROSECOND)"
        if rows := self._since(now, _BEFORE[0][1], {}):
            yield _linked(rows)
        found = self._ask(f"SELECT UNIX_MICROS(MAX(plan_time)) AS newest FROM {self._table}", {})
        newest = found.column("newest")[0].as_py() or 0
        for span_us, limit in _BEFORE:
            begin = {"begin": newest - span_us}
            yield _linked(self._since("TIMESTAMP_MICROS(@begin)", limit, begin))

    def _since(self, begin: str, limit: int, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask(
            f"{SELECT} {self._table} WHERE plan_time >= {begin} ORDER BY plan_time DESC"
            f" LIMIT {limit}",
            values,
        ).to_pylist()
        return found

    def named(self, wanted: Sequence[Landmark]) -> list[RunRecord]:
        """By plan time as well, so that one partition is read for each."""
        times = {f"time_{number}": mark.plan_time for number, mark in enumerate(wanted)}
        moments = ", ".join(f"TIMESTAMP_MICROS(@{name})" for name in times)
        found = self._ask(
            f"{SELECT} {self._table} WHERE plan_time IN ({moments}) AND run_id IN UNNEST(@run_ids)",
            {"run_ids": [mark.run_id for mark in wanted], **times},
        )
        return [to_record(row) for row in found.to_pylist()]


def _linked(rows: Sequence[Mapping[str, Any]]) -> list[LinkedRecord]:
    return [LinkedRecord(to_record(row), row["successor"]) for row in rows if row["run_id"] != ROOT]


class BigQueryRunLedger(BigQueryRunHistory):
    """The run ledger in a BigQuery table; see contract/run_ledger.py.

    table: full name, quoted. It remembers when the records were planned that it has read last or
    has claimed, so that their claims and marks read one partition.
    """

    def __init__(self, queries: Queries, table: str) -> None:
        super().__init__(queries.query, table)
        self._queries = queries

    def claim(self, record: RunRecord) -> bool:
        """Claims by one MERGE; a lost answer is read back by the job's id."""
        predecessor = record.predecessor or ROOT
        assert record.repairs in (None, predecessor), "a repair follows the run that it repairs"
        at = self._plan_times.get(predecessor)
        values = parameters_of(record)
        if at is not None:
            values.append(parameter("follows_at", at))
        changed = self._queries.change(self._claim_sql(at), values, "claim")
        if changed not in (None, 0, 2):
            raise GuaranteeError(
                f"{RUNS}: the claim of {predecessor} changed {changed} rows, not 2. Run `check`,"
                " restore the ledger."
            )
        claimed = changed == 2 or self._is_there(record, predecessor)
        if claimed:
            self._plan_times[record.run_id] = record.plan_time
        return claimed

    def _is_there(self, record: RunRecord, predecessor: str) -> bool:
        """Whether an earlier try of a claim that changed nothing had its effect.

        Raises GuaranteeError for a ledger that no run can follow.
        """
        found = self._queries.query(
            f"SELECT run_id FROM {self._table} WHERE run_id IN (@run_id, @predecessor)",
            {"run_id": record.run_id, "predecessor": predecessor},
        ).column(0)
        if predecessor not in found.to_pylist():
            raise GuaranteeError(
                f"{RUNS} has no row {predecessor}, which this run is to follow. If the table was"
                " created by hand, add its first row: INSERT INTO"
                f" {self._table} (run_id, status, plan_time) VALUES ('{ROOT}', 'COMMITTED',"
                " TIMESTAMP '1970-01-01 00:00:00+00'). Else run `check`,"
                " and restore the ledger."
            )
        # Genesis has the same run_id in every claim of it, so finding it proves nothing.
        return record.predecessor is not None and record.run_id in found.to_pylist()

    def mark(self, run_id: str, status: str) -> None:
        at = self._plan_times.get(run_id)
        sql = (
            f"UPDATE {self._table} SET status = @status"
            f" WHERE run_id = @run_id AND status = '{PREPARED}'{_planned_at('', 'at', at)}"
        )
        values = {"status": status, "run_id": run_id, **({} if at is None else {"at": at})}
        if self._queries.change(sql, values, "mark"):
            return
        found = (
            self._queries.query(
                f"SELECT status FROM {self._table} WHERE run_id = @run_id", {"run_id": run_id}
            )
            .column(0)
            .to_pylist()
        )
        if found != [status]:
            raise GuaranteeError(
                f"{RUNS}: run {run_id} is {found[0] if found else 'not there'}, so it cannot become"
                f" {status}."
            )

    def forget_before(self, border: str, keep: Collection[str]) -> None:
        """In several statements; the next call finds what is left."""
        found = self._queries.query(
            f"SELECT run_id, predecessor, successor FROM {self._table} WHERE run_id <> '{ROOT}'"
        )
        links = zip(*(column.to_pylist() for column in found.columns), strict=True)
        older = removed_before(border, keep, links)
        for start in range(0, len(older), _FORGOTTEN_AT_ONCE):
            some = {"run_ids": older[start : start + _FORGOTTEN_AT_ONCE]}
            sql = f"DELETE FROM {self._table} WHERE run_id IN UNNEST(@run_ids)"
            if self._queries.change(sql, some, "forget") is None:
                raise TryAgainLater(f"{RUNS}: other statements go on changing it. Prune again.")

    def _claim_sql(self, at: int | None) -> str:
        """at: plan time of the predecessor; None: unknown, so that all partitions are read."""
        names = ", ".join(COLUMNS)
        values = ", ".join(VALUES.get(name, f"@{name}") for name in COLUMNS)
        return f"""MERGE {self._table} AS run
USING (
    SELECT IF(step = 'follow', @predecessor, NULL) AS follows
    FROM UNNEST(['follow', 'insert']) AS step
    WHERE EXISTS (SELECT 1 FROM {self._table}
        WHERE run_id = @predecessor AND successor IS NULL{_planned_at("", "follows_at", at)})
) AS claim
ON run.run_id = claim.follows{_planned_at("run.", "follows_at", at)}
WHEN MATCHED THEN UPDATE SET successor = @run_id,
    status = IF(@repairs IS NULL, run.status, '{ABORTED}')
WHEN NOT MATCHED THEN INSERT ({names}) VALUES ({values})"""


def _planned_at(table: str, name: str, at: int | None) -> str:
    """A condition that leaves one partition. at: microseconds since 1970; None: none of them."""
    return "" if at is None else f" AND {table}plan_time = TIMESTAMP_MICROS(@{name})"
