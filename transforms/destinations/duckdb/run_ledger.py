"""`pipeline_runs` in DuckDB.

Every change is one transaction, and its function below is what happens within it.
"""

from __future__ import annotations

import json
from typing import Any, Final

import duckdb
import msgspec

from transforms.destinations.contract.run_ledger import ABORTED, PREPARED, RunRecord, in_order
from transforms.destinations.duckdb.session import DuckDBSession
from transforms.model.errors import GuaranteeError
from transforms.model.tables import RUNS

_COLUMNS: Final = (
    "run_id, predecessor, successor, status, epoch_us(plan_time) AS plan_time, cluster_id,"
    " partitions, tables, lowest_watermark, live_ids, state_bytes,"
    " settings, repairs"
)


class DuckDBRunLedger:
    """The run ledger in a DuckDB file; see contract/run_ledger.py."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session

    def read(self) -> list[RunRecord]:
        result = self._session.cursor().execute(f"SELECT {_COLUMNS} FROM {RUNS}")
        names = [column[0] for column in result.description or []]
        rows = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
        return [_record(row) for row in in_order(rows)]

    def claim(self, record: RunRecord) -> bool:
        try:
            return self._session.atomically(lambda cursor: claim(cursor, record))
        except (duckdb.TransactionException, duckdb.ConstraintException):
            # Two claims met: DuckDB lets one through and refuses the other when it writes or
            # commits.
            return False

    def mark(self, run_id: str, status: str) -> None:
        self._session.atomically(lambda cursor: mark(cursor, run_id, status))


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
    values = msgspec.to_builtins(record)
    values["settings"] = json.dumps(values["settings"], sort_keys=True)
    lists = {name: json.dumps(values[name]) for name in ("partitions", "tables")}
    cursor.execute(_INSERT, {**values, **lists})
    return True


_INSERT: Final = f"""
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
    del row["successor"]
    return msgspec.convert(row, RunRecord)
