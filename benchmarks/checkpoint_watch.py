"""The checkpoints of a running job: how long each took, how large it was, how many at once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from runners.flink.rest import FlinkRest, FlinkUnreachable

_COMPLETED = "COMPLETED"
_IN_PROGRESS = "IN_PROGRESS"
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Seen:
    """A checkpoint or savepoint as it was at the last look.

    job: Flink's id. status: as Flink has it. begun_ms: milliseconds since 1970. took_ms: from its
    beginning to its end, or so far. size: of the whole state in bytes; written: what it has
    written of that.
    """

    job: str
    number: int
    status: str
    begun_ms: int
    took_ms: int
    size: int
    written: int
    is_savepoint: bool

    @property
    def is_complete(self) -> bool:
        return self.status == _COMPLETED

    @property
    def is_in_progress(self) -> bool:
        return self.status == _IN_PROGRESS

    def lies_in(self, checkpoints: Iterable[Path]) -> bool:
        """Whether it is one of these folders."""
        return any(path.parts[-2:] == (self.job, f"chk-{self.number}") for path in checkpoints)


class CheckpointWatch:
    """Remembers every checkpoint that a look has shown. Flink shows the last ten of a job:
    https://nightlies.apache.org/flink/flink-docs-release-1.19/docs/ops/rest_api/#jobs-jobid-checkpoints
    """

    def __init__(self, rest: FlinkRest) -> None:
        self._rest = rest
        self._seen: dict[tuple[str, int], Seen] = {}
        self.most_at_once = 0

    def look(self) -> None:
        """At the newest job; a JobManager that does not answer has nothing to show."""
        with suppress(FlinkUnreachable):
            for job in self._rest.jobs()[:1]:
                found = self._rest.checkpoints(job["jid"])
                self.most_at_once = max(self.most_at_once, found["counts"]["in_progress"])
                for each in found["history"]:
                    self._seen[job["jid"], each["id"]] = Seen(
                        job["jid"],
                        each["id"],
                        each["status"],
                        each["trigger_timestamp"],
                        each["end_to_end_duration"],
                        each["state_size"],
                        each["checkpointed_size"],
                        each["is_savepoint"],
                    )

    @property
    def seen(self) -> list[Seen]:
        """Checkpoints and savepoints, in the order of their beginnings."""
        return sorted(self._seen.values(), key=lambda each: each.begun_ms)

    def completed(self, since: int = 0) -> list[Seen]:
        """Complete checkpoints, without the first `since`."""
        return [each for each in self.seen if each.is_complete and not each.is_savepoint][since:]

    def now(self, seen: Seen) -> Seen:
        """The same one, as the last look has shown it."""
        return self._seen[seen.job, seen.number]

    def one_in_progress(self, seconds: float = 60.0) -> Seen:
        """Waits for a checkpoint that has begun and is not complete. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.look()
            if self.seen and self.seen[-1].is_in_progress:
                return self.seen[-1]
            time.sleep(_LOOK_SECONDS)
        raise TimeoutError(f"no checkpoint is in progress within {seconds:.0f} s")

    def overlapping(self) -> Iterator[str]:
        """Pairs of checkpoints of a job of which one began before the other one had ended."""
        checkpoints = [each for each in self.seen if not each.is_savepoint]
        for before, after in pairwise(checkpoints):
            if before.job == after.job and before.begun_ms + before.took_ms > after.begun_ms:
                yield f"checkpoint {after.number} began before {before.number} had ended"


def in_words(checkpoints: list[Seen]) -> str:
    """How many, how long they took and how large they were."""
    if not checkpoints:
        return "no checkpoint"
    took = sorted(each.took_ms / 1e3 for each in checkpoints)
    return (
        f"{len(took)} checkpoints, {median(took):.1f} s each ({took[0]:.1f} to {took[-1]:.1f}),"
        f" {checkpoints[-1].size / 1e6:.0f} MB, of which"
        f" {median(each.written for each in checkpoints) / 1e6:.0f} MB written by each"
    )
