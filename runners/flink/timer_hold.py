"""Whether the installed Beam lets a processing-time timer hold the watermark where it is wanted.

A timer in Python has no parameter for the time that it holds the output watermark at: it is the
time of the element or timer that is being processed, a private attribute of the timer. A step that
holds the watermark itself sets that attribute first.
"""

from __future__ import annotations

from typing import Any

from apache_beam.runners.worker.bundle_processor import OutputTimer
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import Timestamp

from runners.profile import RunnerRefused

HOLD_ATTRIBUTE = "_input_timestamp"


class _Recorder:
    """In the place of the timer's coder and of its stream."""

    def __init__(self) -> None:
        self.timers: list[Any] = []

    def encode_to_stream(self, timer: Any, stream: Any, nested: bool) -> None:
        self.timers.append(timer)

    def maybe_flush(self) -> None:
        """Nothing is kept back."""


def check_timer_hold(timer_class: Any = OutputTimer) -> None:
    """Sets a timer, and looks where it holds. Raises RunnerRefused where it is elsewhere.

    timer_class: Beam's timer. Without the hold the watermark would run ahead of records that have
    not been read yet, and they would be late.
    """
    recorder, wanted, fires = _Recorder(), Timestamp(5), Timestamp(9)
    try:
        timer = timer_class(
            None, GlobalWindow(), Timestamp(1), None, TimeDomain.REAL_TIME, "", recorder, recorder
        )
        present = hasattr(timer, HOLD_ATTRIBUTE)
        setattr(timer, HOLD_ATTRIBUTE, wanted)
        timer.set(fires)
    except (TypeError, AttributeError):
        present = False
    if not present or [timer.hold_timestamp for timer in recorder.timers] != [wanted]:
        raise RunnerRefused(
            "the installed apache-beam does not let a timer hold the watermark (its private"
            f" {HOLD_ATTRIBUTE} is gone), so records could be taken for late ones. Install the"
            " version that setup.py names."
        )
