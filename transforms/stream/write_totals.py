"""WriteTotals: the DoFn over totals.py. One key; its timer closes event-time windows.

Rows of all shards come together here, so it must stay cheap: they are added up per window first.
"""

from __future__ import annotations

from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
from apache_beam.coders import BytesCoder
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Timestamp

from transforms.deduplicate.process_memory import memory_of
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job
from transforms.model.coders import decode_rows
from transforms.model.totals import add_up
from transforms.stream.head_cell import HeadCell
from transforms.stream.polling import Polling
from transforms.stream.stop_on_error import StopOnError
from transforms.stream.totals import TotalsShard

MEMORY: Final = "write_totals"
"""Name of what this process keeps of the shard."""


class WriteTotals(beam.DoFn):
    """(0, encoded rows of control_totals) -> nothing; one row per window, outcome and currency.

    A window is written once, when the watermark has passed its end. Nothing is dropped as late:
    what comes behind becomes a further row of its window.
    """

    HEAD = ReadModifyWriteStateSpec("head", BytesCoder())
    CLOSE = TimerSpec("close", TimeDomain.WATERMARK)

    def __init__(
        self, destination: Destination, job: Job, polling: Polling, stop: StopOnError
    ) -> None:
        self._destination = destination
        self._job = job
        self._polling = polling
        self._stop = stop

    def setup(self) -> None:
        self._destination.__enter__()

    def teardown(self) -> None:
        self._destination.__exit__(None, None, None)

    def start_bundle(self) -> None:
        self._cell: tuple[Any, Any] | None = None
        self._rows: list[pa.RecordBatch] = []
        self._closed_us: int | None = None

    def process(
        self,
        element: tuple[int, bytes],
        head: Any = beam.DoFn.StateParam(HEAD),
        close: Any = beam.DoFn.TimerParam(CLOSE),
    ) -> None:
        self._cell = head, close
        self._rows.append(decode_rows(element[1]))

    @on_timer(CLOSE)  # type: ignore[untyped-decorator]
    def close(
        self,
        timestamp: Timestamp = beam.DoFn.TimestampParam,
        head: Any = beam.DoFn.StateParam(HEAD),
        close: Any = beam.DoFn.TimerParam(CLOSE),
    ) -> None:
        self._cell = head, close
        micros = timestamp.micros
        self._closed_us = micros if self._closed_us is None else max(micros, self._closed_us)

    def finish_bundle(self) -> None:
        if self._cell is None:
            return
        head, timer = self._cell
        memory = memory_of(self._job.job_id, MEMORY)
        with self._stop.watching("totals"):
            shard = TotalsShard(self._destination, self._job, HeadCell(head), memory, self._polling)
            if self._rows:
                shard.add(add_up(self._rows))
            if self._closed_us is not None:
                shard.close(self._closed_us)
            shard.finish()
        self._stop.went_well("totals")
        # One timer alone would close one window after the other where a watermark passes many.
        for tag, closes_us in shard.closes().items():
            timer.set(Timestamp(micros=closes_us), dynamic_timer_tag=tag)
        self.start_bundle()
