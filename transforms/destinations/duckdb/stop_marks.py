"""Stop marks in DuckDB's shard ledger; see contract/stop_mark.py."""

from __future__ import annotations

from typing import Final

import duckdb

from transforms.destinations.contract.shard_ledger import SHARD_LEDGER, TOTALS_SHARD
from transforms.destinations.contract.stop_mark import StopMark, decode_marks, encode_mark
from transforms.destinations.duckdb.session import ChangesMet, DuckDBSession

_TRIES: Final = 20
"""A claim may change the same row meanwhile: DuckDB lets one through and refuses the other."""


class DuckDBStopMarks:
    """The column `stop_mark` of the shard ledger. The marks of readers stand at TOTALS_SHARD."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session

    def write_mark(self, mark: StopMark, job_id: str, nonce: str | None) -> bool:
        for attempt in range(_TRIES):
            try:
                return self._session.atomically(lambda cursor: write(cursor, mark, job_id, nonce))
            except ChangesMet:
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def read_marks(self, generation: int) -> list[StopMark]:
        found = self._session.cursor().execute(
            f"SELECT stop_mark FROM {SHARD_LEDGER} WHERE stop_mark IS NOT NULL"
        )
        return decode_marks([text for (text,) in found.fetchall()], generation)

    def take_mark_away(self, mark: StopMark) -> None:
        self._session.atomically(
            lambda cursor: cursor.execute(
                f"UPDATE {SHARD_LEDGER} SET stop_mark = NULL WHERE stop_mark = ?",
                [encode_mark(mark)],
            )
        )


def write(
    cursor: duckdb.DuckDBPyConnection, mark: StopMark, job_id: str, nonce: str | None
) -> bool:
    """Sets the mark where none is; returns whether one stands."""
    found = cursor.execute(
        f"UPDATE {SHARD_LEDGER} SET stop_mark = COALESCE(stop_mark, ?) WHERE shard = ?"
        " AND job_id = ? AND generation = ? AND nonce = COALESCE(?, nonce) RETURNING shard",
        [
            encode_mark(mark),
            TOTALS_SHARD if mark.shard is None else mark.shard,
            job_id,
            mark.generation,
            nonce,
        ],
    ).fetchall()
    return bool(found)
