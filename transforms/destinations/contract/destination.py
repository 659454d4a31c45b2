"""What a destination must be able to do, as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from transforms.destinations.contract.live_ids import IdSource
from transforms.destinations.contract.reports import ReportStore
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.contract.visible_rows import VisibleRows
from transforms.destinations.contract.write_streams import WriteStreams
from transforms.model.schema import PaymentSchema


class RunDestination(WriteStreams, IdSource, ReportStore, VisibleRows, Protocol):
    """What a run needs of a destination; see transforms/destinations."""

    def __enter__(self) -> RunDestination: ...

    @property
    def streams_per_hour(self) -> int | None: ...

    def has_tables(self) -> bool: ...

    def create_tables(self, schema: PaymentSchema) -> None: ...

    def read_runs(self) -> list[RunRecord]: ...

    def claim_run(self, record: RunRecord) -> bool: ...

    def mark_run(self, run_id: str, status: str) -> None: ...

    def discard_streams(self, keep: Sequence[str]) -> int: ...

    def discard_reports(self, keep_run_id: str | None) -> None: ...

    def read_reports(self, run_id: str) -> dict[str, list[bytes]]: ...
