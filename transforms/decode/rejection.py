"""Why one value makes its record a row of `rejected_records`."""

from __future__ import annotations

from transforms.model.rejected import Reason


class Rejected(ValueError):
    """This record becomes a row of `rejected_records`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def shortened(text: str) -> str:
    """The text of a value for a detail: its first 60 characters."""
    return text if len(text) <= 60 else text[:60] + "..."


def quoted(text: str) -> str:
    """As `shortened`, in quotes and without control characters."""
    return repr(shortened(text))
