"""A streaming job without Kafka: a timer that counts, and writes the count to a file.

`python -m tests.support.flink_counter FILE [options of Beam]` submits it and waits for its end.
"""

import sys
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.coders import VarIntCoder
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.utils.timestamp import Duration, Timestamp

from pipeline.options.runner import RunnerOptions
from runners.flink.profile import FLINK

PAUSE = Duration(micros=50_000)


class Once(RestrictionProvider):
    """One element, then nothing for ever."""

    def initial_restriction(self, element: Any) -> OffsetRange:
        return OffsetRange(0, 10**9)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: Any, restriction: OffsetRange) -> int:
        return 1


class Feed(beam.DoFn):
    @beam.DoFn.unbounded_per_element()
    def process(self, element: Any, tracker=beam.DoFn.RestrictionParam(Once())):
        position = tracker.current_restriction().start
        if tracker.try_claim(position):
            if position == 0:
                yield ("key", 0)
            tracker.defer_remainder(Duration(3600))


class Count(beam.DoFn):
    COUNT = ReadModifyWriteStateSpec("count", VarIntCoder())
    NEXT = TimerSpec("next", TimeDomain.REAL_TIME)

    def __init__(self, file: str) -> None:
        self._file = file

    def process(self, element: Any, timer=beam.DoFn.TimerParam(NEXT)):
        timer.set(Timestamp.now())

    @on_timer(NEXT)
    def again(self, count=beam.DoFn.StateParam(COUNT), timer=beam.DoFn.TimerParam(NEXT)):
        counted = (count.read() or 0) + 1
        count.write(counted)
        with open(self._file, "a") as lines:
            lines.write(f"{counted}\n")
        timer.set(Timestamp.now() + PAUSE)


def main(file: str, arguments: list[str]) -> None:
    given = {argument[2:].partition("=")[0]: argument for argument in arguments}
    options = PipelineOptions(
        ["--streaming", *arguments, *FLINK.arguments(given)], runner=FLINK.beam_runner
    )
    assert options.view_as(RunnerOptions)
    with beam.Pipeline(options=options) as graph:
        _ = (
            graph
            | beam.Create([0])
            | beam.ParDo(Feed())
            | "Count" >> beam.ParDo(Count(str(Path(file).absolute())))
        )


if __name__ == "__main__":
    from tests.support import flink_counter  # DoFns of __main__ would be pickled by value

    flink_counter.main(sys.argv[1], sys.argv[2:])
