"""The idle rule of streaming: since when a partition is known to have had no payment.

A partition without payments would hold the watermark back for ever. It follows the clock instead,
but only by answers of the broker: that no message came proves nothing, the broker may be away. What
arrived before the broker was asked for the end offset lies below that end. So once the position has
reached it, all payments until the moment of the question have been read.
"""

from __future__ import annotations

from typing import Final

_ASK_AGAIN_US: Final = 5_000_000
"""How often the broker is asked while a partition is quiet, at most: one request each time."""


class IdleWatch:
    """What one process knows of the silence of one partition; times in microseconds.

    The silence is counted anew in each process, from the first answer that says the position is at
    the end. A question without an answer ends it: the broker may have taken records meanwhile from
    producers that waited for it.
    """

    def __init__(self, timeout_us: int | None) -> None:
        """timeout_us: how long the partition must have been quiet; None: it never is."""
        self._timeout_us = timeout_us
        self._every_us = min(_ASK_AGAIN_US, timeout_us // 4) if timeout_us is not None else 0
        self._asked_us: int | None = None
        self._ahead: tuple[int, int] | None = None
        self._quiet_since_us: int | None = None

    def wants_answer(self, now_us: int) -> bool:
        """Whether to ask the broker for the end offset now."""
        return self._timeout_us is not None and (
            # A clock that was set back has not passed the last question yet.
            self._asked_us is None or not 0 <= now_us - self._asked_us < self._every_us
        )

    def payment_came(self) -> None:
        """A payment was read, so the silence is over."""
        self._ahead = self._quiet_since_us = None

    def no_answer(self, asked_at_us: int) -> None:
        """The broker did not answer."""
        self._asked_us = asked_at_us
        self._ahead = self._quiet_since_us = None

    def answered(self, end: int, asked_at_us: int) -> None:
        """The end of the log is `end`. asked_at_us: the moment before the request was sent."""
        self._asked_us = asked_at_us
        # An end that is still ahead stays: the position would never reach one that moves.
        if self._ahead is None:
            self._ahead = end, asked_at_us

    def no_payment_until(self, offset: int) -> int | None:
        """The moment until which no unread payment has come; None where that is not known.

        offset: the next one to read. None too while the partition has not been quiet long enough.
        """
        if self._ahead is None or offset < self._ahead[0]:
            return None
        _, moment_us = self._ahead
        self._ahead = None
        if self._quiet_since_us is None or moment_us < self._quiet_since_us:
            self._quiet_since_us = moment_us
        if self._timeout_us is None or moment_us - self._quiet_since_us < self._timeout_us:
            return None
        return moment_us
