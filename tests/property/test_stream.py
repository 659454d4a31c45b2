"""Random schedules of a job, its deaths and its zombies, against dicts and loops."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.payments import MINUTE
from tests.support.streaming.destination import DESTINATIONS
from tests.support.streaming.faults import STEPS, Kill, Killed
from tests.support.streaming.log import HORIZON, TOPIC, Sent
from tests.support.streaming.oracle import compare, compare_totals
from tests.support.streaming.runner import Attempt, Checkpoint, Cluster, read_to_the_end
from transforms.destinations import appends
from transforms.destinations.appends import MAX_APPEND_BYTES
from transforms.destinations.contract.shard_ledger_rows import all_shards
from transforms.model.errors import GuaranteeError
from transforms.stream.errors import StreamGone, Superseded

PARTITIONS = 3

time = st.one_of(
    st.integers(0, 3).map(lambda minutes: minutes * MINUTE),
    # Around the edges of late and expired.
    st.builds(
        lambda minute, edge: minute * MINUTE + edge,
        st.integers(0, 14),
        st.sampled_from([-1000, -1, 0, 1, 1000]),
    ),
    st.integers(0, 3 * HORIZON),
)
record = st.one_of(
    st.builds(Sent, st.sampled_from("abcdef"), time),
    st.builds(Sent, st.sampled_from("abcdef"), time),
    st.sampled_from([Sent(None, 0), Sent(None, 0, gap=True)]),
)
log = st.lists(st.lists(record, max_size=9), min_size=PARTITIONS, max_size=PARTITIONS)
partition = st.integers(0, PARTITIONS - 1)
reads = st.lists(st.tuples(partition, st.integers(1, 4)), min_size=1, max_size=3)
kill = st.builds(Kill, st.sampled_from(STEPS), st.integers(0, 8), st.booleans())
back = st.integers(0, 2)
what = st.one_of(
    st.tuples(st.just("read"), reads),
    st.tuples(st.just("read"), reads),
    # One of two processes gets its part later, so that gaps are pending meanwhile.
    st.tuples(st.just("read slowly"), st.tuples(st.integers(0, 1), reads)),
    st.tuples(st.just("checkpoint"), st.none()),
    # Which checkpoint (0 the latest), how many appends of the dead one arrive before, where the new
    # process dies.
    st.tuples(st.just("restart"), st.tuples(back, st.integers(0, 6), st.one_of(st.none(), kill))),
    st.tuples(st.just("fail"), st.tuples(kill, reads)),
    st.tuples(st.just("roll back"), back),
    st.tuples(st.just("zombie"), reads),
    st.tuples(st.just("arrive"), st.integers(1, 6)),
    st.tuples(st.just("idle"), st.tuples(partition, time)),
    st.tuples(st.just("compact"), st.tuples(partition, st.integers(0, 8))),
    st.tuples(st.just("new job"), back),
    # Days later: the write streams of all claims so far are gone.
    st.tuples(st.just("expire"), st.none()),
    # After a last bundle that dies on the way; the first of its appends still arrive, which leaves
    # holes between the shards.
    st.tuples(
        st.just("adopt"),
        st.one_of(st.none(), st.tuples(st.integers(0, 4), st.integers(0, 3), reads)),
    ),
)
DIES = (Killed, Superseded, StreamGone)


class World:
    """The job that lives, its checkpoints, and those that should be dead."""

    def __init__(
        self, destination: Any, log: list[list[Sent]], shards: int, processes: int
    ) -> None:
        self.cluster = Cluster(destination, log, shards, processes)
        self.checkpoints: list[Checkpoint] = []
        self.zombies: list[Attempt] = []
        self.cold_start: Any = None
        self.start_watermarks: dict[int, int] = {}
        self.adopt(new_job=False)

    def play(self, step: str, argument: Any) -> None:
        if step == "read":
            self.read(argument)
        elif step == "read slowly":
            slow, argument = argument
            self.read(argument, slow)
        elif step == "fail":
            self.fail(*argument)
        elif step == "roll back":
            # The process lives on, and remembers what the checkpoint has not seen.
            self.alive.now = self.take_checkpoint(argument).copy()
        elif step == "idle":
            where, mark = argument
            self.alive.now.source.idle(where, mark)
            self.start_watermarks[where] = max(mark, self.start_watermarks.get(where, mark))
        elif step == "compact":
            where, offset = argument
            if offset < len(self.cluster.log[where]):
                self.cluster.log[where][offset] = replace(self.cluster.log[where][offset], gap=True)
        elif step == "checkpoint":
            try:
                self.checkpoints.append(self.alive.checkpoint())
            except DIES:
                self.restart(0, None)
        elif step == "restart":
            back, arriving, kill = argument
            self.cluster.network.deliver(arriving)
            self.restart(back, kill)
        elif step == "zombie" and self.zombies:
            zombie = self.zombies.pop(0)
            # One of a superseded job is refused with exit 3, one of the living job finds its
            # streams finalized.
            with suppress(*DIES, GuaranteeError):
                zombie.bundle(argument)
                self.zombies.append(zombie)
        elif step == "arrive":
            self.cluster.network.deliver(argument)
        elif step == "expire":
            for row in self.cluster.real.shards.read(all_shards(self.cluster.shards)):
                for epoch in row.open_epochs:
                    for stream in epoch.streams.values():
                        self.cluster.real.forget_stream(stream)
        elif step == "new job":
            self.cluster.begin_job()
            self.restart(argument, None)
        elif step == "adopt":
            if argument:
                dies_at, arriving, last = argument
                self.alive.destination.kill, self.alive.destination.calls = (
                    Kill("send", dies_at, after=True),
                    {},
                )
                with suppress(*DIES):
                    self.alive.bundle(last)
                self.cluster.network.deliver(arriving)
            self.adopt()

    def read(self, argument: Any, slow: int | None = None) -> None:
        try:
            self.alive.bundle(argument, slow)
        except DIES:
            self.restart(0, None)

    def fail(self, kill: Kill, argument: Any) -> None:
        """A bundle fails, the process lives on, and tries again from the state before it."""
        destination = self.alive.destination
        destination.kill, destination.calls = kill, {}
        with suppress(*DIES):
            self.alive.bundle(argument)
        destination.kill, destination.dead = None, False
        self.read(argument)

    def take_checkpoint(self, back: int) -> Checkpoint:
        """An older checkpoint once restored is the latest."""
        self.checkpoints = self.checkpoints[: max(1, len(self.checkpoints) - back)]
        return self.checkpoints[-1]

    def restart(self, back: int, kill: Kill | None) -> None:
        self.zombies.append(self.alive)
        self.alive = self.cluster.start(
            self.take_checkpoint(back), kill=kill, cold_start=self.cold_start
        )

    def adopt(self, new_job: bool = True) -> None:
        if new_job:
            self.cluster.begin_job()
            self.zombies.append(self.alive)
        start, self.cold_start = self.cluster.adopt()
        known = self.cluster.real.rows.highest_event_times(
            {(TOPIC, partition): at for partition, at in start.source.positions.items()}
        )
        for partition, mark in start.source.watermarks.items():
            if (TOPIC, partition) not in known and mark is not None:
                self.start_watermarks[partition] = max(
                    mark, self.start_watermarks.get(partition, mark)
                )
        self.checkpoints = [start]
        self.alive = self.cluster.start(start, cold_start=self.cold_start)

    def end(self) -> None:
        """The last process has no fault, so it must get to the end: nothing is stuck."""
        try:
            read_to_the_end(self.alive)
        except DIES:
            self.restart(0, None)
            read_to_the_end(self.alive)


schedules = given(
    log,
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2]),
    st.lists(what, max_size=14),
    # Of one append: 1 cuts those of a bundle into one per row.
    st.sampled_from([MAX_APPEND_BYTES, 1]),
)


@examples(60)
@schedules
def test_whatever_dies_and_comes_back_the_tables_hold_what_the_oracle_says(
    log: list[list[Sent]], shards: int, processes: int, script: list[Any], most_bytes: int
) -> None:
    play("duckdb", log, shards, processes, script, most_bytes)


# An example takes a second there.
@pytest.mark.timeout(900)
@examples(6)
@schedules
def test_whatever_dies_and_comes_back_bigquery_holds_it_too(
    log: list[list[Sent]], shards: int, processes: int, script: list[Any], most_bytes: int
) -> None:
    play("bigquery", log, shards, processes, script, most_bytes)


def play(
    kind: str,
    log: list[list[Sent]],
    shards: int,
    processes: int,
    script: list[Any],
    most_bytes: int,
) -> None:
    with (
        TemporaryDirectory() as folder,
        DESTINATIONS[kind](Path(folder)) as destination,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(appends, "MAX_APPEND_BYTES", most_bytes)
        world = World(destination, [list(records) for records in log], shards, processes)
        for step, argument in script:
            world.play(step, argument)
        world.end()
        compare(destination, world.cluster.log, world.start_watermarks)
        compare_totals(destination, log)
        world.cluster.network.deliver(100)
        for zombie in world.zombies:
            with suppress(*DIES, GuaranteeError):
                zombie.bundle([(partition, 9) for partition in range(PARTITIONS)])
        compare(destination, world.cluster.log, world.start_watermarks)
