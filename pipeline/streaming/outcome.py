"""What is known of the command of a streaming job at any moment, for `--json`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class JobOutcome:
    """Filled while the command goes on; None: not known yet.

    job_id: ours. flink_id: Flink's own id of the job. state: as Flink said it last.
    """

    job_id: str | None = None
    generation: int | None = None
    flink_id: str | None = None
    state: str | None = None

    def figures(self) -> dict[str, Any]:
        """The object that `--json` prints at the end of the command, whatever that end is."""
        return asdict(self)
