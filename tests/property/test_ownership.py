"""Random schedules of bounded runs and streaming jobs that hand the tables over to each other.

Jobs begin, take over, are restored and stopped; their drivers die at any change, and processes that
are believed dead go on. The tables are compared with dicts and loops, and `check` is green at each
stop.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_stream import DIES, PARTITIONS, reads, record
from tests.support.examples import examples
from tests.support.in_memory_kafka import InMemoryKafka, use
from tests.support.streaming.destination import DESTINATIONS
from tests.support.streaming.faults import STEPS, Kill, Killed
from tests.support.streaming.hand_over import DyingDestination, Tables
from tests.support.streaming.log import Sent
from tests.support.streaming.oracle import compare
from tests.support.streaming.runner import Attempt, Checkpoint, read_to_the_end
from transforms.destinations.contract.ownership import owner_of, ownership_of
from transforms.model.errors import GuaranteeError

dies_at = st.one_of(st.none(), st.none(), st.tuples(st.integers(0, 25), st.booleans()))
kill = st.one_of(
    st.none(), st.builds(Kill, st.sampled_from(STEPS), st.integers(0, 6), st.booleans())
)
offer = st.tuples(st.just("offer"), st.tuples(st.integers(0, PARTITIONS - 1), st.integers(1, 5)))
number = st.one_of(st.none(), st.integers(1, 5))
begin = st.tuples(st.just("begin"), st.tuples(st.booleans(), number, dies_at))
"""Whether it takes over, with how many shards (None: not given), and the change at which the driver
dies.
"""

restore = st.tuples(st.just("restore"), st.tuples(st.integers(0, 2), dies_at))
stop = st.tuples(st.just("stop"), dies_at)
arrive = st.tuples(st.just("arrive"), st.integers(1, 6))
zombie = st.tuples(st.just("zombie"), reads)
read = st.tuples(st.just("read"), st.tuples(kill, reads))
# The first appends of a bundle that dies arrive, which leaves holes between the shards.
hole = st.tuples(
    st.just("hole"), st.tuples(st.integers(0, 4), st.integers(1, 3), st.booleans(), reads)
)
of_a_job = st.one_of(
    read, read, hole, offer, zombie, arrive, restore, begin,
    st.tuples(st.just("checkpoint"), st.none()),
)  # fmt: skip
behind_a_stop = st.one_of(
    zombie, zombie, arrive, offer, stop, st.tuples(st.just("run"), st.sampled_from([2, 100]))
)
rounds = st.builds(
    lambda first, job, end, stopped, behind: [
        *([("begin", (True, None, None))] if first else []), *job, *end, stopped, *behind
    ],
    st.booleans(),
    st.lists(of_a_job, min_size=1, max_size=6),
    st.lists(hole, max_size=1),
    stop,
    st.lists(behind_a_stop, max_size=3),
)  # fmt: skip
scripts = st.lists(rounds, min_size=1, max_size=3).map(
    lambda parts: [step for part in parts for step in part]
)


class World:
    """What lives, what is believed dead, and who should own the tables."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.alive: Attempt | None = None
        self.checkpoints: list[tuple[str, Checkpoint]] = []
        self.job_id = ""
        self.zombies: list[Attempt] = []
        self.marks: dict[int, int] = {}

    def owned(self) -> bool:
        real = self.tables.real
        return owner_of(real.runs.read()) is not None

    def shards(self) -> int | None:
        """Of the last job; None: there was none."""
        owned = [record for record in self.tables.real.runs.read() if ownership_of(record)]
        return int(owned[-1].settings["shards"]) if owned else None

    def play(self, step: str, argument: Any) -> None:
        if step == "offer":
            partition, more = argument
            offered = list(self.tables.offered or [])
            offered[partition] = min(len(self.tables.log[partition]), offered[partition] + more)
            self.tables.offer(offered)
        elif step == "run":
            self.run(argument)
        elif step == "begin":
            take_over, shards, dying = argument
            given = {} if shards is None else {"shards": shards}
            changes = self.shards() is not None and shards not in (None, self.shards())
            if ((self.owned() or changes) and not take_over) or (self.owned() and changes):
                with pytest.raises(GuaranteeError, match="--from_tables"):
                    self.tables.begin(take_over=take_over, **given)
                return
            self.begin(
                lambda through: self.tables.begin(through, take_over=take_over, **given),
                dying,
                None,
            )
        elif step == "restore":
            back, dying = argument
            if self.checkpoints:
                job_id, kept = self.checkpoints[max(0, len(self.checkpoints) - 1 - back)]
                self.begin(
                    lambda through: self.tables.restore(through, checkpoint_of=job_id), dying, kept
                )
        elif step == "stop":
            self.stop(argument)
        elif step == "read" and self.alive is not None:
            self.read(*argument)
        elif step == "hole" and self.alive is not None:
            at, arriving, lives, wanted = argument
            believed_dead = self.alive
            self.read(Kill("send", at, after=True), wanted)
            self.tables.network.deliver(arriving)
            # It was only believed dead: it goes on with what it has read.
            believed_dead.destination.kill = None
            believed_dead.destination.dead = not lives
        elif step == "checkpoint" and self.alive is not None:
            self.checkpoints.append((self.job_id, self.alive.checkpoint()))
        elif step == "zombie" and self.zombies:
            zombie = self.zombies.pop(0)
            with suppress(*DIES, GuaranteeError):
                zombie.bundle(self.within(argument, zombie))
                self.zombies.append(zombie)
        elif step == "arrive":
            self.tables.network.deliver(argument)

    def within(self, wanted: list[tuple[int, int]], attempt: Attempt) -> list[tuple[int, int]]:
        """Of the reads of a bundle what Kafka has by now."""
        left = {
            partition: end - attempt.now.source.positions.get(partition, 0)
            for partition, end in enumerate(self.tables.offered or [])
        }
        some = []
        for partition, records in wanted:
            some.append((partition, max(0, min(records, left[partition]))))
            left[partition] -= some[-1][1]
        return some

    def run(self, most: int) -> None:
        if self.owned():
            with pytest.raises(GuaranteeError, match="owns the tables"):
                self.tables.run()
            return
        for claimed in self.tables.run(max_records_per_run=most):
            for part in claimed.partitions:
                self.mark(part.partition, part.start_watermark)

    def begin(
        self, operation: Callable[[Any], Any], dying: tuple[int, bool] | None, kept: Any
    ) -> None:
        """kept: the checkpoint of a restore."""
        was_owned = self.owned()
        try:
            begun = operation(DyingDestination(self.tables.real, *(dying or (None, False))))
        except Killed:
            # Nothing was submitted: who lived before may have lost its generation.
            return
        except GuaranteeError as refused:
            assert kept is not None, refused
            return
        assert kept is None or was_owned, "a restore of a job that does not own the tables"
        if self.alive is not None:
            self.zombies.append(self.alive)
        for part in begun.partitions:
            self.mark(part.partition, part.watermark_us)
        self.job_id = begun.job.job_id
        self.alive = self.tables.attempt(begun, kept.copy() if kept is not None else None)
        if kept is None:
            self.checkpoints = []
        self.checkpoints.append((self.job_id, self.alive.checkpoint()))
        self.begun = begun

    def mark(self, partition: int, watermark: int | None) -> None:
        if watermark is not None:
            self.marks[partition] = max(watermark, self.marks.get(partition, watermark))

    def stop(self, dying: tuple[int, bool] | None) -> None:
        if not self.owned():
            return
        try:
            self.tables.stop(DyingDestination(self.tables.real, *(dying or (None, False))))
        except Killed:
            return
        assert not self.owned()
        if self.alive is not None:
            self.zombies.append(self.alive)
            self.alive = None
        assert self.tables.failures() == []

    def read(self, dies: Kill | None, wanted: list[tuple[int, int]]) -> None:
        """A bundle; where it fails, a process of the same job goes on from the last checkpoint."""
        assert self.alive is not None
        self.alive.destination.kill, self.alive.destination.calls = dies, {}
        try:
            self.alive.bundle(self.within(wanted, self.alive))
            self.alive.destination.kill = None
        except DIES:
            self.zombies.append(self.alive)
            self.alive = self.tables.attempt(self.begun, self.checkpoints[-1][1])
        except GuaranteeError as refused:
            # A driver that died half way has superseded the job.
            assert "superseded" in refused.message, refused
            self.zombies.append(self.alive)
            self.alive = None

    def end(self) -> None:
        """Nothing is stuck: a stop, a run, and a last job come to the end of everything."""
        self.stop(None)
        self.tables.offer([len(records) for records in self.tables.log])
        self.run(100)
        self.begin(self.tables.begin, None, None)
        assert self.alive is not None
        read_to_the_end(self.alive)
        self.stop(None)


# Enough records, and shards, for holes between them.
logs = st.lists(st.lists(record, min_size=6, max_size=10), min_size=PARTITIONS, max_size=PARTITIONS)
schedules = given(logs, st.sampled_from([2, 3]), scripts)


@examples(30)
@schedules
def test_whoever_owns_the_tables_they_hold_what_the_oracle_says(
    log: list[list[Sent]], shards: int, script: list[Any]
) -> None:
    play("duckdb", log, shards, script)


@examples(4)
@schedules
def test_whoever_owns_the_tables_bigquery_holds_it_too(
    log: list[list[Sent]], shards: int, script: list[Any]
) -> None:
    play("bigquery", log, shards, script)


def play(kind: str, log: list[list[Sent]], shards: int, script: list[Any]) -> None:
    kafka = InMemoryKafka()
    with (
        TemporaryDirectory() as folder,
        DESTINATIONS[kind](Path(folder)) as destination,
        pytest.MonkeyPatch.context() as patch,
    ):
        use(kafka, patch)
        offered = [len(records) - 2 for records in log]
        tables = Tables(destination, kafka, [list(records) for records in log], shards, 1, offered)
        world = World(tables)
        for step, argument in script:
            world.play(step, argument)
        world.end()
        compare(destination, tables.log, world.marks)
        tables.network.deliver(100)
        for zombie in world.zombies:
            with suppress(*DIES, GuaranteeError):
                zombie.bundle([(partition, 9) for partition in range(PARTITIONS)])
        compare(destination, tables.log, world.marks)
        assert tables.failures() == []
