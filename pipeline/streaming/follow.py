"""Looks after a submitted job until it ends or the command is interrupted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pipeline.failures import JobFailed
from pipeline.interrupt import interrupting_signal
from pipeline.logs import shows_bar
from pipeline.streaming.figures import JobFigures, one_line
from pipeline.streaming.flink_job import FlinkJob, cause_of
from runners.flink.rest import ENDED, FlinkUnreachable, NotKnown
from transforms.model.errors import GuaranteeError, TryAgainLater

_LOG = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
LINE_SECONDS: Final = 10.0
TERMINAL_SECONDS: Final = 2.0

GIVE_UP_SECONDS: Final = 300.0
"""Without an answer of Flink. The command would hold a DuckDB file for ever."""

_GO_ON: Final = (
    "What is in the tables is correct. Start the cluster again where it is lost, and go on with"
    " --restore=latest; `stop --lost` hands the tables over without it."
)
_NO_SLOT: Final = "NoResourceAvailableException"
"""Flink counts each look for a task slot in vain as a failure of the job."""

_EXPIRED: Final = "Checkpoint expired before completing"
_EXPIRED_IN_WORDS: Final = (
    "the next one was not complete within --checkpoint_timeout_millis. If it happens again, give"
    " more: a start without a checkpoint loads ids first, and a slow volume takes longer to write"
)


@contextmanager
def counters_shown() -> Iterator[tuple[Callable[[str], None], float]]:
    """Takes the line of figures, every so many seconds: a terminal has it as its last line."""
    if not shows_bar():
        yield lambda line: _LOG.info("%s", line), LINE_SECONDS
        return
    from pipeline.run.progress_bar import bar_shown

    newest = {"line": ""}
    with bar_shown(lambda: newest["line"]):
        yield lambda line: newest.update(line=line), TERMINAL_SECONDS


class Follower:
    """Shows what a job does.

    show: takes the line of figures, every `line_seconds`. now_us: the clock, microseconds since
    1970. marked: the reasons of the stop marks of the job that stand now. sleep: seconds.
    """

    def __init__(
        self,
        job: FlinkJob,
        show: Callable[[str], None],
        now_us: Callable[[], int],
        marked: Callable[[], Sequence[str]],
        sleep: Callable[[float], None] = time.sleep,
        line_seconds: float = LINE_SECONDS,
    ) -> None:
        self._job = job
        self._line_seconds = line_seconds
        self._show = show
        self._now_us = now_us
        self._marked = marked
        self._sleep = sleep
        self._failures = 0
        self._waits_for_slot = False
        self._silent = 0.0
        self._figures: JobFigures | None = None

    def until_end(self) -> str:
        """Returns the state in which the job has ended: CANCELED or FINISHED.

        Returns RUNNING where the command is interrupted. Raises GuaranteeError where the job has
        ended by an error that a person must decide; JobFailed where it has failed otherwise;
        TryAgainLater where Flink has forgotten the job, or is silent for GIVE_UP_SECONDS.
        """
        waited = self._line_seconds
        while interrupting_signal() is None:
            state = self._look()
            if state in ENDED:
                return self._ended(state)
            if waited >= self._line_seconds and state:
                waited = 0.0
                self._figure_line(state)
            self._sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
        return "RUNNING"

    def _look(self) -> str:
        """The state of the job; "" where Flink does not answer."""
        try:
            state = self._job.state()
            failures = self._job.failures()
        except NotKnown as error:
            raise TryAgainLater(
                f"Flink does not know the job any more: its JobManager was started again ({error})."
                f" {_GO_ON}"
            ) from error
        except FlinkUnreachable as error:
            self._silent += LOOK_SECONDS
            if self._silent >= GIVE_UP_SECONDS:
                raise TryAgainLater(
                    f"Flink does not answer for {self._silent:.0f} s ({error}). {_GO_ON}"
                ) from error
            if self._silent in (5.0, 60.0):
                _LOG.warning("Flink does not answer for %.0f s (%s)", self._silent, error)
            return ""
        self._silent = 0.0
        for failure in reversed(failures[: len(failures) - self._failures]):
            self._say_why(cause_of(failure))
        self._failures = len(failures)
        return state

    def _say_why(self, cause: str) -> None:
        waits = cause.startswith(_NO_SLOT)
        if not waits:
            why = _EXPIRED_IN_WORDS if _EXPIRED in cause else cause
            _LOG.warning("the job begins again from its last checkpoint: %s", why)
        elif not self._waits_for_slot:
            _LOG.warning("the job waits for a task slot: does a TaskManager run? (%s)", cause)
        self._waits_for_slot = waits

    def _ended(self, state: str) -> str:
        # Flink's newest failure may be that of another step, or have been mended by a restart long
        # before the job was cancelled. The mark of a confirmed error stands until the next job:
        # transforms/stream/stop_on_error.py.
        if marked := self._marked():
            raise GuaranteeError(marked[0])
        if state != "FAILED":
            return state
        failures = self._job.failures()
        if failures and (decided := GuaranteeError.find_in(RuntimeError(failures[0]))):
            raise decided
        cause = cause_of(failures[0]) if failures else "Flink knows no cause"
        raise JobFailed(
            f"the job has failed: {cause.rstrip('.')}. What is in the tables is correct. Remove the"
            " cause, if it is none of the pipeline's; then --restore=latest goes on from the newest"
            " checkpoint, --from_tables where there is none."
        )

    def _figure_line(self, state: str) -> None:
        try:
            now = JobFigures(self._job.figures(), self._now_us())
        except FlinkUnreachable:
            return
        self._show(one_line(state, self._figures or now, now))
        self._figures = now
