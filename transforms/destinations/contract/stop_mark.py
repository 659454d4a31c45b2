"""The stop mark: an error that the runner must not answer by restarting the job.

A runner restarts after any error. So a process that finds that the guarantee cannot be kept writes
a mark first, and every process of the job looks for one before it goes on.

The mark is a column of the shard ledger that claims and closings of a shard leave alone; only
`begin_job` lifts it, in the statement that raises the generation. It is written under the current
generation only, and for a shard under the nonce of the process's own claim, so that a superseded
process does not stop a healthy job. That does not keep out a reader that is resumed late: the
process that finds a mark asks again, by fresh answers, whether the error is there, and takes a
false mark away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class StopMark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """generation: of the job that must stop. shard: of the row shard whose process has written it;
    None: a reader. subject: what to look at again, such as a topic's name. reason: for a person.
    token: random, names this very mark. since_us: when it was written, by the clock of the process,
    microseconds since 1970; None in marks of versions that did not write it.
    """

    generation: int
    shard: int | None
    subject: str
    reason: str
    token: str
    since_us: int | None = None


class StopMarks(Protocol):
    """Marks of one ledger: at most one for each row shard, and one for all readers."""

    def write_mark(self, mark: StopMark, job_id: str, nonce: str | None) -> bool:
        """Writes the mark, if the ledger is stamped with this job and the mark's generation.

        nonce: for a shard, of the claim that it was recovered with, which the ledger must still
        have; None for a reader. An earlier mark of the same row stays. Returns whether one stands
        now; False: the writer is superseded, and its error is not the job's.
        """

    def read_marks(self, generation: int) -> Sequence[StopMark]:
        """The marks of the job of this generation, in the order of their shards."""

    def take_mark_away(self, mark: StopMark) -> None:
        """Removes this very mark, because the error is not there. Does nothing where it is gone."""


def encode_mark(mark: StopMark) -> str:
    """As the ledger holds it."""
    return msgspec.json.encode(mark).decode()


def decode_marks(texts: Sequence[str], generation: int) -> list[StopMark]:
    """Those of one generation, readers first."""
    marks = [msgspec.json.decode(text, type=StopMark) for text in texts]
    mine = [mark for mark in marks if mark.generation == generation]
    return sorted(mine, key=lambda mark: -1 if mark.shard is None else mark.shard)
