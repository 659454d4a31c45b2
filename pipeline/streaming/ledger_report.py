"""What `status` shows of the ledger, as text and as JSON: owner, positions, stop marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from transforms.destinations.contract.destination import Destination, chain_of
from transforms.destinations.contract.ownership import Ownership, owner_of
from transforms.destinations.contract.run_ledger import PartitionProgress
from transforms.destinations.contract.stop_mark import StopMark
from transforms.model.moments import moment_in_words


@dataclass(frozen=True)
class LedgerReport:
    """At one moment.

    owner: None where bounded runs may write. marks: stop marks of its job. partitions: of the
    newest record of the chain; empty where nothing was ever read.
    """

    owner: Ownership | None
    marks: Sequence[StopMark]
    partitions: Sequence[PartitionProgress]

    def as_json(self) -> dict[str, Any]:
        """Times in microseconds since 1970."""
        owner = self.owner
        return {
            "owner": None
            if owner is None
            else {
                "job_id": owner.job_id,
                "generation": owner.generation,
                "since_us": owner.since_us,
            },
            "stop_marks": [mark.reason for mark in self.marks],
            "positions": [
                {"topic": part.topic, "partition": part.partition, "offset": part.to_offset}
                for part in self.partitions
            ],
        }

    def lines(self) -> Iterator[str]:
        """The same for a person."""
        if self.owner is None:
            yield "no streaming job owns the tables: bounded runs may write to them"
            before, behind = "bounded runs go on at", ""
        else:
            yield (
                f"the streaming job {self.owner.job_id} owns the tables since"
                f" {moment_in_words(self.owner.since_us)}, generation {self.owner.generation}"
            )
            before, behind = "it began at", "; a stop finds where the tables end by now"
        yield from map(_marked, self.marks)
        if self.partitions:
            positions = [
                f"{part.topic}:{part.partition}: {part.to_offset:,}" for part in self.partitions
            ]
            yield f"  {before} {', '.join(positions)}{behind}"


def ledger_report(destination: Destination) -> LedgerReport:
    """Asks the ledger of an open destination."""
    runs = chain_of(destination)
    owner = owner_of(runs)
    marks = [] if owner is None else destination.shards.read_marks(owner.generation)
    return LedgerReport(owner, marks, runs[-1].partitions if runs else ())


def _marked(mark: StopMark) -> str:
    since = "" if mark.since_us is None else f" at {moment_in_words(mark.since_us)}"
    return (
        f"a process of it has met an error{since} that a person must decide; it ends the job when"
        f" it comes again: {mark.reason}"
    )
