"""Random schedules of a job, its deaths and its zombies, against dicts and loops."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.payments import MINUTE
from tests.stream_faults import STEPS, Kill, Killed
from tests.stream_log import FIELDS, HORIZON, TOPIC, Sent
from tests.stream_oracle import compare, compare_totals
from tests.stream_runner import Attempt, Checkpoint, Cluster, read_to_the_end
from transforms.destinations.duckdb import DuckDBDestination
from transforms.errors import GuaranteeError
from transforms.stream_append import StreamGone
from transforms.stream_recover import Superseded

PARTITIONS = 3

time = st.one_of(
    st.integers(0, 3).map(lambda minutes: minutes * MINUTE),
    # Around the edges of late and expired.
    st.builds(lambda minute, edge: minute * MINUTE + edge, st.integers(0, 14), st.sampled_from([-1000, -1, 0, 1, 1000])),
    st.integers(0, 3 * HORIZON),
)
record = st.builds(Sent, st.sampled_from(["a", "b", "c", "d", "e", "f", None]), time)
log = st.lists(st.lists(record, max_size=9), min_size=PARTITIONS, max_size=PARTITIONS)
reads = st.lists(st.tuples(st.integers(0, PARTITIONS - 1), st.integers(1, 4)), min_size=1, max_size=3)
kill = st.one_of(st.none(), st.builds(Kill, st.sampled_from(STEPS), st.integers(0, 8), st.booleans()))
what = st.one_of(
    st.tuples(st.just("read"), reads),
    st.tuples(st.just("read"), reads),
    st.tuples(st.just("checkpoint"), st.none()),
    # Which checkpoint (0 the latest), how many appends still arrive before, where the new process dies, whether the old one lives on.
    st.tuples(st.just("restart"), st.tuples(st.integers(0, 2), st.integers(0, 6), kill)),
    st.tuples(st.just("zombie"), reads),
    st.tuples(st.just("arrive"), st.integers(1, 6)),
    st.tuples(st.just("new job"), st.integers(0, 2)),
    st.tuples(st.just("adopt"), st.none()),
)
DIES = (Killed, Superseded, StreamGone)


class World:
    """The job that lives, its checkpoints, and those that should be dead."""

    def __init__(self, destination: Any, log: list[list[Sent]], shards: int, processes: int) -> None:
        self.cluster = Cluster(destination, log, shards, processes)
        self.checkpoints: list[Checkpoint] = []
        self.zombies: list[Attempt] = []
        self.cold_start: Any = None
        self.adopted = False
        self.start_watermarks: dict[int, int] = {}
        self.adopt(new_job=False)

    def play(self, step: str, argument: Any) -> None:
        if step == "read":
            self.read(argument)
        elif step == "checkpoint":
            self.checkpoints.append(self.alive.checkpoint())
        elif step == "restart":
            back, arriving, kill = argument
            self.cluster.network.deliver(arriving)
            self.restart(back, kill)
        elif step == "zombie" and self.zombies:
            zombie = self.zombies.pop(0)
            # One of a superseded job is refused with exit 3, one of the living job finds its streams finalized.
            with suppress(*DIES, GuaranteeError):
                zombie.bundle(argument)
                self.zombies.append(zombie)
        elif step == "arrive":
            self.cluster.network.deliver(argument)
        elif step == "new job":
            self.cluster.begin_job()
            self.restart(argument, None)
        elif step == "adopt":
            self.adopt()

    def read(self, argument: Any) -> None:
        try:
            self.alive.bundle(argument)
        except DIES:
            self.restart(0, None)

    def restart(self, back: int, kill: Kill | None) -> None:
        self.zombies.append(self.alive)
        start = self.checkpoints[max(0, len(self.checkpoints) - 1 - back)]
        # An older checkpoint once restored is the latest.
        self.checkpoints = self.checkpoints[: self.checkpoints.index(start) + 1]
        self.alive = self.cluster.start(start, kill=kill, cold_start=self.cold_start)

    def adopt(self, new_job: bool = True) -> None:
        if new_job:
            self.cluster.begin_job()
            self.zombies.append(self.alive)
            self.adopted = True
        start, self.cold_start = self.cluster.adopt()
        known = self.cluster.real.highest_event_times({(TOPIC, partition): at for partition, at in start.source.positions.items()})
        for partition, mark in start.source.watermarks.items():
            if (TOPIC, partition) not in known and mark is not None:
                self.start_watermarks[partition] = max(mark, self.start_watermarks.get(partition, mark))
        self.checkpoints = [start]
        self.alive = self.cluster.start(start, cold_start=self.cold_start)

    def end(self) -> None:
        """The last process has no fault, so it must get to the end: nothing is stuck."""
        try:
            read_to_the_end(self.alive)
        except DIES:
            self.restart(0, None)
            read_to_the_end(self.alive)


@settings(max_examples=120, deadline=None)
@given(log, st.sampled_from([1, 3]), st.sampled_from([1, 2]), st.lists(what, max_size=14))
def test_whatever_dies_and_comes_back_the_tables_hold_what_the_oracle_says(
    log: list[list[Sent]], shards: int, processes: int, script: list[Any]
) -> None:
    with TemporaryDirectory() as folder, DuckDBDestination(str(Path(folder, "stream.duckdb"))) as destination:
        destination.create_tables(FIELDS)
        world = World(destination, log, shards, processes)
        for step, argument in script:
            world.play(step, argument)
        world.end()
        compare(destination, log, world.start_watermarks)
        if not world.adopted:
            compare_totals(destination, log, world.alive.now)
        world.cluster.network.deliver(100)
        for zombie in world.zombies:
            with suppress(*DIES, GuaranteeError):
                zombie.bundle([(partition, 9) for partition in range(PARTITIONS)])
        compare(destination, log, world.start_watermarks)
