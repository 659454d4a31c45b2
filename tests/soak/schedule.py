"""Which faults a run of the soak test has, and when: from its seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

DUCKDB: Final = "duckdb"
BIGQUERY: Final = "bigquery"

CLIENT: Final = "client"
"""kill -9 of the command, which is the worker as well; restored from the newest checkpoint."""
INTERRUPT: Final = "interrupt"
"""Ctrl-C, and a restore from the savepoint that the command has taken."""
WORKER: Final = "worker"
"""kill -9 of a process that a worker pool has started."""
RESTART: Final = "restart"
"""Another command restores the newest checkpoint while the job runs."""
FROM_TABLES: Final = "from_tables"
"""The job goes on without a checkpoint."""
TASK_MANAGER: Final = "task_manager"
ZOMBIE: Final = "zombie"
"""A TaskManager is stopped, another one takes over, and the first goes on at the next fault."""
JOB_MANAGER: Final = "job_manager"
EVERYTHING: Final = "everything"
"""kill -9 of all of Flink's servers and of the command at once, then a restore."""
BROKER: Final = "broker"
AWAY: Final = "away"
"""The destination breaks every connection for a while."""
ANSWERS: Final = "answers"
"""The destination does what it is asked to, and the answers are lost."""

_ANYWHERE: Final = (FROM_TABLES, TASK_MANAGER, ZOMBIE, BROKER, JOB_MANAGER, EVERYTHING)
FAULTS: Final = {
    DUCKDB: (CLIENT, CLIENT, INTERRUPT, *_ANYWHERE),
    BIGQUERY: (WORKER, WORKER, RESTART, AWAY, ANSWERS, *_ANYWHERE),
}
"""Destination -> the faults that are drawn for it; what stands there twice comes twice as often."""

_LONG: Final = frozenset({JOB_MANAGER, EVERYTHING})
"""A schedule has one of these at most: each starts servers."""


@dataclass(frozen=True)
class Fault:
    """One fault.

    after: records that have been sent by then. lasts: records that are sent meanwhile, where it
    has an end of its own. settled: whether the job must have completed a checkpoint since the fault
    before it, so that it does not hit a job that is just recovering.
    """

    kind: str
    after: int
    lasts: int
    settled: bool

    def __str__(self) -> str:
        return f"{self.kind}@{self.after}{'' if self.settled else '!'}"


@dataclass(frozen=True)
class Schedule:
    """One run of the soak test.

    destination: DUCKDB, where the command is the worker, or BIGQUERY (the stand-in), with a worker
    pool. parallelism: subtasks of each step. horizon_us: for how long an id is known, microseconds.
    checkpoint_ms: from one checkpoint to the next. lost: whether `stop` is called with --lost.
    """

    seed: int
    destination: str
    partitions: int
    parallelism: int
    records: int
    horizon_us: int
    checkpoint_ms: int
    faults: tuple[Fault, ...]
    lost: bool


def schedule_of(seed: int, destination: str | None = None) -> Schedule:
    """The schedule of a seed. destination: this one, not the drawn one."""
    draw = random.Random(seed)
    drawn = BIGQUERY if draw.random() < 0.35 else DUCKDB
    destination = destination or drawn
    records = draw.randrange(3_000, 6_000)
    return Schedule(
        seed=seed,
        destination=destination,
        partitions=draw.randint(2, 5),
        parallelism=draw.choice((1, 1, 2)),
        records=records,
        horizon_us=draw.choice((5, 20, 60)) * 60_000_000,
        checkpoint_ms=draw.choice((300, 1_000, 3_000)),
        faults=_faults(draw, destination, records),
        lost=draw.random() < 0.5,
    )


def _faults(draw: random.Random, destination: str, records: int) -> tuple[Fault, ...]:
    kinds: list[str] = []
    for _ in range(draw.randint(2, 4)):
        kind = draw.choice(FAULTS[destination])
        if kind in _LONG and _LONG.intersection(kinds):
            kind = TASK_MANAGER
        kinds.append(kind)
    moments = sorted(draw.sample(range(records // 10, records * 9 // 10), len(kinds)))
    return tuple(
        Fault(kind, after, draw.randrange(300, 1_500), draw.random() < 0.6)
        for kind, after in zip(kinds, moments, strict=True)
    )
