"""What a run has to say beside the records of its transactions."""

from __future__ import annotations

from dataclasses import dataclass, field

from transforms.model.rejected_counts import RejectedCount


@dataclass
class Notes:
    """Filled while the run goes on.

    rejected: what the committed transactions have rejected, by cause.
    """

    rejected: list[RejectedCount] = field(default_factory=list)
