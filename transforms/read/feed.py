"""The beginning of the streaming graph: what is to be read, and partitions that are added later.

No splittable DoFn reads Kafka. Beam's Flink runner 2.70 stores each residual of an unbounded one
under a state name of its own and never frees it (https://github.com/apache/beam/pull/39191 mends
it). So Feed defers once an hour, and loops of timers do the rest: DiscoverPartitions asks the
broker for new partitions, ReadLoop (read_loop.py) reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import apache_beam as beam
import msgspec
from apache_beam.coders import BytesCoder
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec, TimerSpec, on_timer
from apache_beam.typehints import with_output_types
from apache_beam.utils.timestamp import Duration, Timestamp

from transforms.read.new_partitions import NewPartitions
from transforms.read.position import PartitionPosition, encode_position
from transforms.read.stop import StopOnError

FAR_AHEAD: Final = Timestamp.from_rfc3339("2100-01-01T00:00:00Z")
"""The watermark of Feed. Not the end of time: at that the runner ends the job's timers, and no poll
would ever fire.
"""

_FEED_DEFERS: Final = Duration.of(3600)
_ASK_SECONDS: Final = 15.0

_SUBJECT: Final = "new partitions"
"""Of stop marks."""


class _OneElement(RestrictionProvider):
    def initial_restriction(self, element: int) -> OffsetRange:
        return OffsetRange(0, 1 << 62)

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, element: int, restriction: OffsetRange) -> int:
        return 1

    def truncate(self, element: int, restriction: OffsetRange) -> None:
        return None


@with_output_types(tuple[int, bytes])
class Feed(beam.DoFn):
    """Emits (0, nothing) once, and stays, so that the watermark behind it never ends."""

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(
        self,
        element: int,
        tracker: Any = beam.DoFn.RestrictionParam(_OneElement()),
        watermark: Any = beam.DoFn.WatermarkEstimatorParam(
            ManualWatermarkEstimator.default_provider()
        ),
    ) -> Iterator[tuple[int, bytes]]:
        at = tracker.current_restriction().start
        if not tracker.try_claim(at):
            return
        if at == 0:
            yield 0, b""
        watermark.set_watermark(FAR_AHEAD)
        tracker.defer_remainder(_FEED_DEFERS)


@with_output_types(tuple[str, bytes])
class DiscoverPartitions(beam.DoFn):
    """(0, nothing) -> (topic:partition, encoded PartitionPosition), each partition once.

    State: the partitions that were emitted. The broker is asked every 15 s.
    """

    KNOWN = ReadModifyWriteStateSpec("known", BytesCoder())
    ASK = TimerSpec("ask", TimeDomain.REAL_TIME)

    def __init__(
        self,
        begins: Sequence[PartitionPosition],
        new: NewPartitions,
        stop: StopOnError,
        behind_us: int,
        now_seconds: Callable[[], float] = time.time,
    ) -> None:
        """begins: where the job begins, one for each partition known then.

        After a restore the checkpoint has positions of its own. Of `begins` those count that it
        does not know: of a topic that is named for the first time, for instance. stop: what to do
        about an error. behind_us: no watermark is later than this long before now, in microseconds.
        """
        self._begins = list(begins)
        self._new = new
        self._stop = stop
        self._behind_us = behind_us
        self._now = now_seconds

    def teardown(self) -> None:
        self._new.close()

    def process(
        self,
        element: tuple[int, bytes],
        known: Any = beam.DoFn.StateParam(KNOWN),
        ask: Any = beam.DoFn.TimerParam(ASK),
    ) -> Iterator[tuple[str, bytes]]:
        if known.read():
            return
        yield from self._emit(self._begins, {}, known)
        self._again(ask)

    @on_timer(ASK)  # type: ignore[untyped-decorator]
    def ask_broker(
        self,
        known: Any = beam.DoFn.StateParam(KNOWN),
        ask: Any = beam.DoFn.TimerParam(ASK),
    ) -> Iterator[tuple[str, bytes]]:
        before = msgspec.msgpack.decode(known.read(), type=dict[str, int])
        named = self._unknown(before)
        with self._stop.watching(_SUBJECT):
            found = self._new.beyond(_counted(named, before))
        self._stop.went_well(_SUBJECT)
        yield from self._emit([*named, *found], before, known)
        self._again(ask)

    def _unknown(self, before: Mapping[str, int]) -> list[PartitionPosition]:
        """They did not hold the watermark back while the job ran without them."""
        return [
            msgspec.structs.replace(begin, watermark_us=None, is_new=True)
            for begin in self._begins
            if begin.partition >= before.get(begin.topic, 0)
        ]

    def _emit(
        self, found: Sequence[PartitionPosition], before: Mapping[str, int], known: Any
    ) -> Iterator[tuple[str, bytes]]:
        for position in found:
            yield f"{position.topic}:{position.partition}", encode_position(position)
        known.write(msgspec.msgpack.encode(_counted(found, before)))

    def _again(self, ask: Any) -> None:
        # A subtask of ReadLoop without a partition holds nothing itself, and its watermark does not
        # go back for a partition that it gets later: so it must never be ahead of those that read.
        now = self._now()
        hold = Timestamp(micros=(int(now * 1_000_000) - self._behind_us) // 1000 * 1000)
        set_timer(ask, now + _ASK_SECONDS, hold)


def _counted(found: Sequence[PartitionPosition], before: Mapping[str, int]) -> dict[str, int]:
    """Topic -> number of its known partitions, which Kafka only ever raises."""
    counts = dict(before)
    for position in found:
        counts[position.topic] = max(counts.get(position.topic, 0), position.partition + 1)
    return counts


def set_timer(timer: Any, at_seconds: float, hold: Timestamp) -> None:
    """Sets a processing-time timer, and the watermark that it holds its step's output at.

    Beam's Python SDK has no parameter for the output timestamp of a processing-time timer, although
    the Fn API carries one: the private attribute is it. tests/unit/read/test_timer_hold.py pins it,
    and runners/flink/timer_hold.py refuses a start where it is not there.
    """
    timer._input_timestamp = hold
    timer.set(Timestamp(micros=int(at_seconds * 1_000_000)))
