"""Windows without complete totals: they were open when a job began without a checkpoint.

Their unwritten totals were in the state that is lost. Their rows are in the tables, but the way
from the dedup step to the tables cannot be checked for them any more. So they are marked, by a row
of `control_totals` that adds nothing, and `check` says so.

A window with rows above the positions is marked too, although its totals may be complete: a replay
passes those rows, and they are counted again.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone

import pyarrow as pa

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.write_streams import COMMITTED_STREAM
from transforms.model.coordinates import TopicPartition
from transforms.model.tables import TOTALS, TOTALS_SCHEMA
from transforms.model.totals import UNOBSERVED


def mark_unobserved(destination: Destination, positions: Mapping[TopicPartition, int]) -> list[str]:
    """Marks every window that the job cannot observe; returns the newly marked, as text.

    positions: where the job begins to read. No other process may write meanwhile. Called again
    after a crash it may mark a window twice, which means the same.
    """
    unfinished = destination.rows.unfinished_windows(positions)
    known = set(
        destination.query(destination.checks.unobserved_windows).column("window_start").to_pylist()
    )
    windows = [window for window in unfinished if window not in known]
    if windows:
        rows = [
            {"window_start": _moment(window), "outcome": UNOBSERVED, "records": 0, "checksum": 0}
            for window in windows
        ]
        stream = destination.streams.create(TOTALS, COMMITTED_STREAM)
        destination.streams.send(
            stream, 0, pa.RecordBatch.from_pylist(rows, schema=TOTALS_SCHEMA)
        ).wait()
        destination.streams.finalize(stream)
    return windows


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
