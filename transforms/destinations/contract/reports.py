"""Reports of the workers to the driver."""

from __future__ import annotations

from typing import Protocol


class ReportStore(Protocol):
    """A destination that keeps sets of reports until the driver has read one."""

    def __enter__(self) -> ReportStore: ...

    def __exit__(self, *error: object) -> None: ...

    def save_reports(self, run_id: str, attempt: str, reports: list[bytes]) -> None:
        """Keeps one set. Several attempts of one run may be kept; each is complete in itself."""
