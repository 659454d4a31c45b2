"""What the steps that read need of transforms/stream/stop_on_error.py."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol


class StopOnError(Protocol):
    """What a step does about an error that a restart cannot mend. Picklable."""

    def watching(self, subject: str) -> AbstractContextManager[None]:
        """Around a question or a poll. subject: what a second look is about."""

    def went_well(self, subject: str) -> None:
        """After one that has found no error."""
