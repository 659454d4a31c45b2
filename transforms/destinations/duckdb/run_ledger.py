"""`pipeline_runs` in DuckDB.

Every change is one transaction, and its function below is what happens within it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final

import duckdb
import msgspec

from transforms.destinations.contract.chain import in_order, removed_before
from transforms.destinations.contract.run_ledger import ABORTED, PREPARED, RunRecord
from transforms.destinations.contract.run_tail import (
    Landmark,
    LinkedRecord,
    read_backwards,
    read_tail,
)
from transforms.destinations.duckdb.session import ChangesMet, DuckDBSession
from transforms.model.errors import GuaranteeError
from transforms.model.tables import RUNS

_COLUMNS: Final = (
    "run_id, predecessor, successor, status, epoch_us(plan_time) AS plan_time, cluster_id,"
    " partitions, tables, lowest_watermark, live_ids, state_bytes,"
    " settings, repairs"
)

_PARTS: Final = (8, 512, 32_768)
"""Numbers of rows in each part of `newest`, three at most for each record, as it moves twice. A run
is mostly answered by two records.
"""


class DuckDBRunLedger:
    """The run ledger in a DuckDB file; see contract/run_ledger.py."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session

    def read(self) -> list[RunRecord]:
        return in_order(self._linked(""))

    def tail(self) -> list[RunRecord]:
        return read_tail(self)

    def backwards(self) -> Iterator[RunRecord]:
        return read_backwards(self)

    def newest(self) -> Iterator[list[LinkedRecord]]:
        """By rowid: DuckDB gives a record the next one when it is claimed, marked or followed."""
        (found,) = (
            self._session.cursor().execute(f"SELECT max(rowid), count(*) FROM {RUNS}").fetchall()
        )
        for size in _PARTS:
            if size >= found[1]:
                return
            yield self._linked(f"WHERE rowid > {found[0] - size}")

    def named(self, wanted: Sequence[Landmark]) -> list[RunRecord]:
        names = [mark.run_id for mark in wanted]
        marks = ", ".join("?" * len(names))
        return [_record(row) for row in self._rows(f"WHERE run_id IN ({marks})", names)]

    def _linked(self, which: str) -> list[LinkedRecord]:
        return [LinkedRecord(_record(row), row["successor"]) for row in self._rows(which)]

    def _rows(self, which: str, parameters: Sequence[str] = ()) -> list[dict[str, Any]]:
        result = self._session.cursor().execute(
            f"SELECT {_COLUMNS} FROM {RUNS} {which}", list(parameters)
        )
        names = [column[0] for column in result.description or []]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def claim(self, record: RunRecord) -> bool:
        try:
            return self._session.atomically(lambda cursor: claim(cursor, record))
        except (ChangesMet, duckdb.ConstraintException):
            # Two claims met: DuckDB lets one through and refuses the other when it writes or
            # commits.
            return False

    def mark(self, run_id: str, status: str) -> None:
        self._session.atomically(lambda cursor: mark(cursor, run_id, status))

    def forget_before(self, border: str, keep: Collection[str]) -> None:
        def forget(cursor: duckdb.DuckDBPyConnection) -> None:
            links = cursor.execute(f"SELECT run_id, predecessor, successor FROM {RUNS}").fetchall()
            cursor.execute(
                f"DELETE FROM {RUNS} WHERE run_id IN (SELECT unnest($1::VARCHAR[]))",
                [removed_before(border, keep, links)],
            )

        self._session.atomically(forget)


def claim(cursor: duckdb.DuckDBPyConnection, record: RunRecord) -> bool:
    """Sets the predecessor's successor by compare-and-set, and inserts the record."""
    if record.predecessor is None:
        if cursor.execute(f"SELECT 1 FROM {RUNS} LIMIT 1").fetchone():
            return False
    else:
        changed = cursor.execute(
            f"UPDATE {RUNS} SET successor = ? WHERE run_id = ? AND successor IS NULL RETURNING"
            " run_id",
            [record.run_id, record.predecessor],
        ).fetchall()
        if len(changed) != 1:
            return False
    if record.repairs is not None:
        mark(cursor, record.repairs, ABORTED)
    cursor.execute(INSERT, insert_values(record))
    return True


def insert_values(record: RunRecord) -> dict[str, Any]:
    """The parameters of INSERT."""
    values = msgspec.to_builtins(record)
    values["settings"] = json.dumps(values["settings"], sort_keys=True)
    lists = {name: json.dumps(values[name]) for name in ("partitions", "tables")}
    return {**values, **lists}


INSERT: Final = f"""
INSERT INTO {RUNS} BY NAME
SELECT $run_id AS run_id, $predecessor AS predecessor, NULL AS successor, $status AS status,
    make_timestamp($plan_time::BIGINT) AS plan_time, $cluster_id AS cluster_id,
    from_json($partitions::JSON, '[{{"topic":"VARCHAR","partition":"INTEGER","topic_id":"VARCHAR",
    "from_offset":"BIGINT","to_offset":"BIGINT","records":"BIGINT","gap_offsets":"BIGINT",
    "coordinate_hash":"UBIGINT","start_watermark":"BIGINT","watermark":"BIGINT",
    "position_since":"BIGINT"}}]') AS partitions,
    from_json($tables::JSON, '[{{"table":"VARCHAR","rows":"BIGINT",
    "commit_groups":[["VARCHAR"]]}}]') AS tables,
    $lowest_watermark::BIGINT AS lowest_watermark,
    $live_ids::BIGINT AS live_ids, $state_bytes::BIGINT AS state_bytes,
    $settings::JSON AS settings, $repairs AS repairs
"""


def mark(cursor: duckdb.DuckDBPyConnection, run_id: str, status: str) -> None:
    """Sets the status of a PREPARED run; no other run changes."""
    found = cursor.execute(f"SELECT status FROM {RUNS} WHERE run_id = ?", [run_id]).fetchone()
    if found == (status,):
        return
    if found != (PREPARED,):
        raise GuaranteeError(
            f"{RUNS}: run {run_id} is {found[0] if found else 'not there'}, so it cannot become"
            f" {status}."
        )
    cursor.execute(f"UPDATE {RUNS} SET status = ? WHERE run_id = ?", [status, run_id])


def _record(row: dict[str, Any]) -> RunRecord:
    row = {**row, "settings": json.loads(row["settings"])}
    return msgspec.convert(row, RunRecord)
