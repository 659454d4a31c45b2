"""Reports of a run in DuckDB: one row for each attempt, until the driver has read them."""

from __future__ import annotations

from transforms.destinations.duckdb.session import DuckDBSession
from transforms.destinations.duckdb.tables import REPORTS


class DuckDBReports:
    """The reports in a DuckDB file; see contract/reports.py."""

    def __init__(self, session: DuckDBSession) -> None:
        self._session = session

    def save(self, run_id: str, attempt: str, reports: list[bytes]) -> None:
        self._session.cursor().execute(
            f"INSERT INTO {REPORTS} VALUES (?, ?, ?)", [run_id, attempt, reports]
        )

    def read(self, run_id: str) -> dict[str, list[bytes]]:
        rows = self._session.cursor().execute(
            f"SELECT attempt, reports FROM {REPORTS} WHERE run_id = ?", [run_id]
        )
        return {attempt: list(reports) for attempt, reports in rows.fetchall()}

    def forget(self, run_id: str) -> None:
        self._session.cursor().execute(f"DELETE FROM {REPORTS} WHERE run_id = ?", [run_id])

    def discard(self, keep_run_id: str | None) -> None:
        self._session.cursor().execute(
            f"DELETE FROM {REPORTS} WHERE run_id IS DISTINCT FROM ?", [keep_run_id]
        )
