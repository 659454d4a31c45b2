"""Reports of a run in BigQuery: a set is there as a whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import pyarrow as pa

from transforms.destinations.appends import FailBundle, TableAppends
from transforms.destinations.bigquery.settings import BigQuerySettings
from transforms.destinations.bigquery.tables import REPORTS, REPORTS_SCHEMA
from transforms.destinations.contract.write_streams import StreamAlreadyCommitted, WriteStreams

PIECE_BYTES: Final = 1 << 20
"""A report may hold totals of many windows; its pieces fit any append."""


class Destination(WriteStreams, Protocol):
    """What reports need of the BigQuery destination."""

    settings: BigQuerySettings

    def query(self, sql: str, parameters: Mapping[str, Any] | None = None) -> pa.Table: ...


def save(destination: Destination, run_id: str, attempt: str, reports: list[bytes]) -> None:
    """Writes one set of reports, by a pending stream of its own."""
    pieces = [
        (number, start // PIECE_BYTES, report[start : start + PIECE_BYTES])
        for number, report in enumerate(reports)
        for start in range(0, max(1, len(report)), PIECE_BYTES)
    ]
    appends = TableAppends(destination, REPORTS, FailBundle())
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
    destination.finalize_stream(written.stream)
    # No other process knows this stream: committed already means that an answer was lost.
    with suppress(StreamAlreadyCommitted):
        destination.commit_streams(REPORTS, [written.stream])


def read(destination: Destination, run_id: str) -> dict[str, list[bytes]]:
    """Attempt -> its complete set."""
    sql = f"""SELECT attempt, pieces, report, content FROM {destination.settings.table(REPORTS)} WHERE run_id = @run_id
ORDER BY attempt, report, piece"""
    sets: dict[str, dict[int, bytes]] = {}
    left: dict[str, int] = {}
    for row in destination.query(sql, {"run_id": run_id}).to_pylist():
        reports = sets.setdefault(row["attempt"], {})
        reports[row["report"]] = reports.get(row["report"], b"") + row["content"]
        left[row["attempt"]] = left.get(row["attempt"], row["pieces"]) - 1
    return {
        attempt: list(reports.values()) for attempt, reports in sets.items() if left[attempt] == 0
    }
