"""Which process of a job on Spark is killed when: everything from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

CLIENT = "client"
JOB_SERVER = "job server"
EXECUTOR = "executor"
WORKER = "Python worker"

_KILLS_A_STOP = 4
_STOP_SECONDS = 3.0, 15.0
_TRANSACTION_SECONDS = 2.0
"""What one of 50,000 messages takes, from its beginning to behind its commit."""


@dataclass(frozen=True)
class Fault:
    """What is done to a process, and when.

    after: seconds behind the beginning. into: so many seconds into the transaction that begins
    next then; None: whatever goes on. stopped: seconds from SIGSTOP to SIGCONT; 0: SIGKILL.
    """

    victim: str
    after: float
    into: float | None = None
    stopped: float = 0.0

    def __str__(self) -> str:
        what = f"stopped for {self.stopped:.0f} s" if self.stopped else "kill -9"
        when = "" if self.into is None else f", {self.into:.2f} s into a transaction"
        return f"{self.victim}: {what}{when}"


def faults_of(seed: int, kills: int, seconds: float, victims: Sequence[str]) -> list[Fault]:
    """So many kills in so many seconds, of each victim as often as of the others; and a stop of the
    client or the job server for each fourth kill. Half of all hit a transaction on purpose.
    """
    draw = random.Random(f"kills {seed}")
    stops = kills // _KILLS_A_STOP
    stoppable = (CLIENT, JOB_SERVER)
    planned = [(victims[number % len(victims)], 0.0) for number in range(kills)]
    planned += [
        (stoppable[number % len(stoppable)], draw.uniform(*_STOP_SECONDS))
        for number in range(stops)
    ]
    draw.shuffle(planned)
    moments = sorted(draw.uniform(0, seconds) for _ in planned)
    return [
        Fault(
            victim,
            after,
            draw.uniform(0, _TRANSACTION_SECONDS) if draw.random() < 0.5 else None,
            stopped,
        )
        for (victim, stopped), after in zip(planned, moments, strict=True)
    ]
