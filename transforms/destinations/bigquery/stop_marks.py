"""Stop marks in BigQuery's shard ledger; see contract/stop_mark.py.

One UPDATE of one row writes a mark. It conflicts with `begin_job`, claims and closings, which
change the same row: one of two has its effect, the other is run again on what that has left.
"""

from __future__ import annotations

from transforms.destinations.bigquery.queries import Queries
from transforms.destinations.contract.shard_ledger import TOTALS_SHARD
from transforms.destinations.contract.stop_mark import StopMark, decode_marks, encode_mark


class BigQueryStopMarks:
    """The column `stop_mark` of the shard ledger. The marks of readers stand at TOTALS_SHARD.

    table: full name, quoted.
    """

    def __init__(self, queries: Queries, table: str) -> None:
        self._queries = queries
        self._table = table

    def write_mark(self, mark: StopMark, job_id: str, nonce: str | None) -> bool:
        where = {
            "shard": TOTALS_SHARD if mark.shard is None else mark.shard,
            "job_id": job_id,
            "generation": mark.generation,
        }
        condition = " AND ".join(f"{name} = @{name}" for name in where)
        if nonce is not None:
            where["nonce"] = nonce
            condition += " AND nonce = @nonce"
        sql = f"UPDATE {self._table} SET stop_mark = @mark WHERE {condition} AND stop_mark IS NULL"
        if self._queries.change(sql, {**where, "mark": encode_mark(mark)}, "write-mark"):
            return True
        # An earlier mark stands, or the answer to this very one was lost.
        found = self._queries.query(
            f"SELECT COUNT(*) AS n FROM {self._table} WHERE {condition} AND stop_mark IS NOT NULL",
            where,
        )
        return bool(found.column("n")[0].as_py())

    def read_marks(self, generation: int) -> list[StopMark]:
        found = self._queries.query(
            f"SELECT stop_mark FROM {self._table} WHERE stop_mark IS NOT NULL"
        )
        return decode_marks(found.column("stop_mark").to_pylist(), generation)

    def take_mark_away(self, mark: StopMark) -> None:
        self._queries.change(
            f"UPDATE {self._table} SET stop_mark = NULL WHERE stop_mark = @mark",
            {"mark": encode_mark(mark)},
            "take-mark-away",
        )
