"""WriteGaps: the DoFn over gaps.py. One key; the answers of all shards come together here."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from transforms.deduplicate.process_memory import memory_of
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job
from transforms.model.elements import GapAnswer
from transforms.stream.gaps import GapsShard
from transforms.stream.head_cell import HeadCell
from transforms.stream.polling import Polling
from transforms.stream.stop_on_error import StopOnError


class WriteGaps(beam.DoFn):
    """(0, GapAnswer) -> nothing; rows of offset_gaps, once every shard has answered."""

    HEAD = ReadModifyWriteStateSpec("head", BytesCoder())

    def __init__(
        self,
        destination: Destination,
        job: Job,
        shards: int,
        polling: Polling,
        stop: StopOnError,
    ) -> None:
        self._destination = destination
        self._job = job
        self._shards = shards
        self._polling = polling
        self._stop = stop

    def setup(self) -> None:
        self._destination.__enter__()

    def teardown(self) -> None:
        self._destination.__exit__(None, None, None)

    def start_bundle(self) -> None:
        self._cell: Any = None
        self._answers: list[GapAnswer] = []

    def process(
        self, element: tuple[int, GapAnswer], head: Any = beam.DoFn.StateParam(HEAD)
    ) -> None:
        self._cell = head
        self._answers.append(element[1])

    def finish_bundle(self) -> None:
        if self._cell is None:
            return
        memory, cells = memory_of(self._job.job_id, "write_gaps"), HeadCell(self._cell)
        with self._stop.watching("gaps"):
            shard = GapsShard(
                self._destination, self._job, self._shards, cells, memory, self._polling
            )
            for answer in self._answers:
                shard.add(answer)
            shard.finish()
        self._stop.went_well("gaps")
        self.start_bundle()
