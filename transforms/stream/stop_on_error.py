"""An error that a restart cannot mend ends the job, once a second look has confirmed it.

A runner restarts a job after any error, up to its bound. A GuaranteeError would come again and
again. So the process that meets it writes a stop mark (contract/stop_mark.py) before it fails. The
next attempt looks again, by fresh answers and a recovery of its own: where the error is there
again, it asks the runner to end the job; where it is not, a process that was believed dead had
written the mark, and it is taken away.

The error may come late in the replay, with the very record that it is about. So a single poll or
bundle without it proves nothing: the subject must go well for longer than a replay takes.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job
from transforms.destinations.contract.stop_mark import StopMark
from transforms.model.errors import GuaranteeError, TryAgainLater

_SETTLED_SECONDS: Final = 600.0
"""A replay begins at the newest checkpoint, so it is over long before."""

_FRESH_SECONDS: Final = 5.0
"""All partitions of a process begin at about the same time: one question does for them."""

_SEEN: Final[dict[Job, tuple[float, Sequence[StopMark]]]] = {}
_GUARD: Final = threading.Lock()


@dataclass(frozen=True)
class StopOnError:
    """What the steps of one job do about an error. Picklable: each DoFn instance has its own copy.

    end_job: asks the runner to end the job for good, and does not wait for it. clock: monotonic, in
    seconds.
    """

    destination: Destination
    job: Job
    end_job: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    _looks: dict[str, tuple[float, Sequence[StopMark]]] = field(
        default_factory=dict, init=False, compare=False
    )
    """By subject: when it went well for the first time, and the marks that stood then."""

    @contextmanager
    def watching(
        self, subject: str, claimed: Callable[[], tuple[int, str] | None] = lambda: None
    ) -> Iterator[None]:
        """Around a step of the job: `failed` for a GuaranteeError, which is raised on.

        claimed: row shard and nonce of a claim of this process, None where it has none.
        """
        try:
            yield
        except GuaranteeError as error:
            self.failed(subject, error, claimed())
            raise

    def failed(
        self, subject: str, error: GuaranteeError, claimed: tuple[int, str] | None = None
    ) -> None:
        """Before `error` is raised on: writes the mark, or ends the job where one stands.

        A job that another one, or a stop, has followed is ended too: it is refused for good.
        subject: what a second look is about, such as a partition. claimed: see `watching`.
        """
        if isinstance(error, TryAgainLater):
            return
        self._looks.pop(subject, None)
        with self.destination as destination:
            (stamped,) = destination.shards.read([0])
            if (stamped.job_id, stamped.generation) != (self.job.job_id, self.job.generation):
                self.end_job()
                return
            marks = destination.shards.read_marks(self.job.generation)
            shard, nonce = claimed or (None, None)
            if any(mark.subject == subject for mark in marks):
                # The claim may be another process's by now: then this error is not the job's.
                if shard is None or destination.shards.read([shard])[0].nonce == nonce:
                    self.end_job()
                return
            for mark in marks:
                if shard is None and mark.shard is None:
                    # There is room for one. Each restart by this error would keep the other one.
                    destination.shards.take_mark_away(mark)
            mark = StopMark(
                generation=self.job.generation,
                shard=shard,
                subject=subject,
                reason=error.message,
                token=secrets.token_hex(8),
                since_us=time.time_ns() // 1000,
            )
            destination.shards.write_mark(mark, self.job.job_id, nonce)
        with _GUARD:
            _SEEN.pop(self.job, None)

    def went_well(self, subject: str) -> None:
        """After a step that has found no error.

        Takes a mark of this subject away as false, once no step has found one for long enough.
        """
        if subject not in self._looks:
            mine = [mark for mark in self._marks() if mark.subject == subject]
            self._looks[subject] = self.clock(), mine
        since, marks = self._looks[subject]
        if not marks or self.clock() - since < _SETTLED_SECONDS:
            return
        self._looks[subject] = since, ()
        with self.destination as destination:
            for mark in marks:
                destination.shards.take_mark_away(mark)

    def _marks(self) -> Sequence[StopMark]:
        with _GUARD:
            asked, marks = _SEEN.get(self.job, (None, ()))
            if asked is None or self.clock() - asked > _FRESH_SECONDS:
                with self.destination as destination:
                    marks = destination.shards.read_marks(self.job.generation)
                _SEEN[self.job] = self.clock(), marks
            return marks
