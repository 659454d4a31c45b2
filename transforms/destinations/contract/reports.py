"""Reports of the workers to the driver of a bounded run."""

from __future__ import annotations

from typing import Protocol


class ReportStore(Protocol):
    """Keeps sets of reports until the driver has read one."""

    def save(self, run_id: str, attempt: str, reports: list[bytes]) -> None:
        """Keeps one set, atomically: as a whole, or not at all.

        Several attempts of one run may be kept; each is complete in itself. The runner may repeat
        the step, every time under a new attempt.
        """

    def read(self, run_id: str) -> dict[str, list[bytes]]:
        """Attempt -> its complete set, in no particular order; empty where none was saved."""

    def forget(self, run_id: str) -> None:
        """Removes the reports of one run. May do nothing where reports expire by themselves."""

    def discard(self, keep_run_id: str | None) -> None:
        """Removes the reports of all runs but this one; None: of all.

        May do nothing where reports expire by themselves.
        """
