"""What is known of a `run` at any moment: its figures, also when it is refused or stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from pipeline.kafka_admin import TopicState
from pipeline.run.notes import Notes
from pipeline.run.summary import summarize
from transforms.destinations.contract.run_ledger import RunRecord, last_committed, partitions_of
from transforms.model.topic_generations import current_generations

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass
class Outcome:
    """Filled while the run goes on; `figures` may be asked for at any moment.

    runs: the tail of the chain as last read. states: what the broker said of the topics at first.
    run_id: of the transaction in hand, or the last one. committed: records of this command's
    transactions. rejected: rows of the question `reasons`. notes:
    what the run has to say beside. bytes_read, bytes_billed: by queries,
    None where reading is not billed.
    """

    runs: Sequence[RunRecord] = ()
    states: Sequence[TopicState] = ()
    run_id: str | None = None
    committed: list[RunRecord] = field(default_factory=list)
    rejected: Sequence[Mapping[str, Any]] = ()
    notes: Notes = field(default_factory=Notes)
    seconds: float = 0.0
    bytes_read: int | None = None
    bytes_billed: int | None = None

    def figures(self) -> dict[str, Any]:
        """For `--json`, and for the summary that a person reads."""
        return {
            "run_id": self.run_id,
            "run_ids": [record.run_id for record in self.committed],
            **summarize(self.committed, self.rejected, self.seconds, self.bytes_read, self.notes),
            **({} if self.bytes_billed is None else {"bytes_billed": self.bytes_billed}),
            "positions": self._positions(),
        }

    def _positions(self) -> list[dict[str, Any]]:
        """One for each partition that the ledger knows or the broker has, of current generations.

        position: the next offset that is not in the destination. end: of the log, when the broker
        was asked at the start; None for a topic that this run does not name. lag: offsets between.
        """
        known = partitions_of(last_committed(self.runs)) if self.runs else {}
        current = current_generations(
            [*(topic for topic, _ in known), *(state.topic for state in self.states)]
        ).values()
        bounds = {
            (state.topic, partition): bounds
            for state in self.states
            for partition, bounds in state.partitions.items()
        }
        positions = []
        for topic, partition in sorted(known.keys() | bounds.keys()):
            if topic not in current:
                continue
            part = known.get((topic, partition))
            low, end = bounds.get((topic, partition), (None, None))
            position = part.to_offset if part else low
            positions.append(
                {
                    "topic": topic,
                    "partition": partition,
                    "position": position,
                    "end": end,
                    "lag": None if end is None or position is None else max(0, end - position),
                    "watermark": _rfc_3339(part.watermark) if part else None,
                }
            )
        return positions


def _rfc_3339(micros: int | None) -> str | None:
    if micros is None:
        return None
    return (_EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
