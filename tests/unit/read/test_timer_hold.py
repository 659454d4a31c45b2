"""The private attribute with which a processing-time timer holds the watermark back.

Beam has no public way to set it: a new SDK that takes it away must not go unnoticed.
"""

from typing import Any

import pytest
from apache_beam.runners.worker.bundle_processor import OutputTimer
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import Timer
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP, Timestamp
from apache_beam.utils.windowed_value import PANE_INFO_UNKNOWN

from transforms.read.feed import set_timer


class _Stream:
    def maybe_flush(self) -> None:
        pass


class _Encoded:
    def __init__(self) -> None:
        self.timers: list[Timer] = []

    def encode_to_stream(self, timer: Timer, _stream: Any, _nested: bool) -> None:
        self.timers.append(timer)


@pytest.mark.parametrize("hold", [MIN_TIMESTAMP, Timestamp(micros=1_790_000_000_123_000)])
def test_the_timer_that_is_sent_to_the_runner_holds_the_output_at_the_watermark(
    hold: Timestamp,
) -> None:
    encoded = _Encoded()
    timer = OutputTimer(
        b"key", GlobalWindow(), MAX_TIMESTAMP, PANE_INFO_UNKNOWN, TimeDomain.REAL_TIME, "poll",
        encoded, _Stream(),
    )  # fmt: skip
    set_timer(timer, 1_790_000_000.5, hold)
    (sent,) = encoded.timers
    assert sent.hold_timestamp == hold
    assert sent.fire_timestamp == Timestamp(1_790_000_000.5)
