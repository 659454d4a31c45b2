"""Time is a parameter of the stand-in: a function that answers an aware datetime in UTC."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

Clock = Callable[[], datetime]


def system_clock() -> datetime:
    return datetime.now(timezone.utc)


class ManualClock:
    """Stands still until a test moves it."""

    def __init__(self, start: datetime = datetime(2026, 8, 1, 12, 0, tzinfo=timezone.utc)) -> None:
        self.now = start

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: float) -> None:
        """advance(hours=3, minutes=1), as timedelta has them."""
        self.now += timedelta(**duration)
