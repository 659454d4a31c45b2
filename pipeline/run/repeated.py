"""A run that its runner has lost is repeated from step 1, with growing pauses, up to a bound.

Repeating it is safe: what the lost attempt has written is in no record of the ledger, and step 1
removes it. A worker of that attempt that still lives finds its streams gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from pipeline.counted import counted
from pipeline.interrupt import stop_if_interrupted
from runners.profile import RunAborted, RunnerAway
from transforms.model.errors import TryAgainLater

_LOG = logging.getLogger(__name__)

PAUSES_SECONDS: Final = (1.0, 3.0, 9.0, 27.0)
"""Before each further attempt. A job server that is started again meanwhile is waited for apart
from that (runners/spark/run.py)."""


def repeated(
    attempt: Callable[[], None],
    committed: Callable[[], int],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Calls `attempt` until it comes to its end.

    committed: how many transactions have been; one more begins the count of attempts anew. Raises
    TryAgainLater where the runner is away or busy, and behind the last attempt.
    """
    lost = before = 0
    while True:
        try:
            attempt()
            return
        except RunnerAway as away:
            raise TryAgainLater(f"{away} Nothing of this run is visible.") from away
        except RunAborted as aborted:
            stop_if_interrupted()
            now = committed()
            lost, before = (1 if now > before else lost + 1), now
            if lost > len(PAUSES_SECONDS):
                raise TryAgainLater(
                    f"the run was lost {counted(lost, 'time')} in a row, the last time because"
                    f" {aborted} Nothing of it is visible."
                ) from aborted
            pause = PAUSES_SECONDS[lost - 1]
            _LOG.warning(
                "the run was lost, and nothing of it is visible: %s It is repeated in %.0f s"
                " (attempt %d of %d)",
                aborted,
                pause,
                lost + 1,
                len(PAUSES_SECONDS) + 1,
            )
            sleep(pause)
