"""Reports of a run in BigQuery, until the driver has read them.

A set of reports is there as a whole or not at all.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

import pyarrow as pa

from transforms.destinations.appends import FailBundle, TableAppends
from transforms.destinations.bigquery.queries import Queries
from transforms.destinations.bigquery.streams import BigQueryStreams
from transforms.destinations.bigquery.table_shapes import REPORTS, REPORTS_SCHEMA
from transforms.destinations.contract.write_streams import StreamAlreadyCommitted

PIECE_BYTES: Final = 1 << 20
"""Bytes of one piece of a report.

A report may hold totals of many windows; its pieces fit any append.
"""


class BigQueryReports:
    """The reports in a BigQuery table; see contract/reports.py.

    table: full name of `run_reports`, quoted.
    """

    def __init__(self, streams: BigQueryStreams, queries: Queries, table: str) -> None:
        self._streams = streams
        self._queries = queries
        self._table = table

    def save(self, run_id: str, attempt: str, reports: list[bytes]) -> None:
        """Appends the set to a pending stream of its own, and commits it."""
        pieces = [
            (number, start // PIECE_BYTES, report[start : start + PIECE_BYTES])
            for number, report in enumerate(reports)
            for start in range(0, max(1, len(report)), PIECE_BYTES)
        ]
        appends = TableAppends(self._streams, REPORTS, FailBundle())
        for number, piece, content in pieces:
            row = {
                "run_id": run_id,
                "attempt": attempt,
                "pieces": len(pieces),
                "report": number,
                "piece": piece,
                "content": content,
            }
            appends.add(pa.RecordBatch.from_pylist([row], schema=REPORTS_SCHEMA))
        written = appends.written()
        if written is None:
            return
        self._streams.finalize(written.stream)
        # No other process knows this stream: the answer to the first try was lost.
        with suppress(StreamAlreadyCommitted):
            self._streams.commit(REPORTS, [written.stream])

    def read(self, run_id: str) -> dict[str, list[bytes]]:
        sql = f"""SELECT attempt, pieces, report, content FROM {self._table} WHERE run_id = @run_id
ORDER BY attempt, report, piece"""
        sets: dict[str, dict[int, bytes]] = {}
        left: dict[str, int] = {}
        for row in self._queries.query(sql, {"run_id": run_id}).to_pylist():
            reports = sets.setdefault(row["attempt"], {})
            reports[row["report"]] = reports.get(row["report"], b"") + row["content"]
            left[row["attempt"]] = left.get(row["attempt"], row["pieces"]) - 1
        return {
            attempt: list(reports.values())
            for attempt, reports in sets.items()
            if left[attempt] == 0
        }

    def forget(self, run_id: str) -> None:
        """Does nothing: see discard."""

    def discard(self, keep_run_id: str | None) -> None:
        """Does nothing: partitions of the reports expire."""
