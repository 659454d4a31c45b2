"""What the soak test sends: each record with the table that it must end in.

Its event times advance by a four hundredth of the dedup horizon with each record, so that ids
expire all the time. Every verdict is certain, also after any replay: a record is either far from
the watermark or rejected by its bytes alone.
"""

from __future__ import annotations

import json
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.soak.schedule import Schedule
from transforms.model.moments import moment_in_words
from transforms.model.rejected import (
    FUTURE,
    INVALID_JSON,
    LATE,
    MISSING_FIELD,
    NULL_VALUE,
    WRONG_TYPE,
    Reason,
)

COMMIT: Final = "commit"
ABORT: Final = "abort"
FENCE: Final = "fence"
"""Another producer of the same transactional id begins, so that the broker aborts."""

_HOUR_US: Final = 3_600_000_000
_RECORDS_A_HORIZON: Final = 400
_BROKEN: Final[tuple[tuple[bytes | None, Reason], ...]] = (
    (None, NULL_VALUE),
    (b"broken", INVALID_JSON),
    (b'{"transaction_id":"t1"}', MISSING_FIELD),
    (
        b'{"transaction_id":"t1","event_time":"2026-01-01T00:00:00Z","amount":[],"currency":"EUR"}',
        WRONG_TYPE,
    ),
)


@dataclass(frozen=True)
class Record:
    """One record of the topic.

    transaction_id, event_us and amount: of a payment; event_us in microseconds since 1970. reason:
    why it must be rejected; None: it is on time, a payment or a copy of one.
    """

    partition: int
    value: bytes | None
    transaction_id: str | None = None
    event_us: int | None = None
    amount: str | None = None
    reason: Reason | None = None


@dataclass(frozen=True)
class Send:
    """A record to be sent, in the transaction that is open or outside of it."""

    record: Record
    in_transaction: bool


@dataclass(frozen=True)
class End:
    """The end of the open transaction: COMMIT, ABORT or FENCE. The first Send in it opens it."""

    how: str


@dataclass
class _Known:
    transaction_id: str
    amount: str
    event_us: int
    oldest_us: int


class Traffic:
    """Endless actions from a seed, after a warm-up. now_us: microseconds since 1970."""

    def __init__(self, schedule: Schedule, now_us: int) -> None:
        self._random = random.Random(f"traffic {schedule.seed}")
        self._partitions = schedule.partitions
        self._horizon_us = schedule.horizon_us
        self._step_us = schedule.horizon_us // _RECORDS_A_HORIZON
        self._now_us = now_us
        self.warm_up = 20 * schedule.partitions
        # The clock of the event times never passes the one on the wall.
        span_us = (schedule.records + self.warm_up) * self._step_us
        self._start_us = self._clock_us = now_us - 2 * 60_000_000 - span_us
        self._ids: dict[str, _Known] = {}
        self._recent: deque[_Known] = deque()

    def early(self) -> Iterator[Send]:
        """Payments for every partition: all watermarks are known once they are read."""
        for number in range(self.warm_up):
            yield Send(self._payment(number % self._partitions), in_transaction=False)

    def actions(self) -> Iterator[Send | End]:
        """All others, without an end; a transaction is closed after 15 records of it at most."""
        draw = self._random
        again: list[Record] = []
        while True:
            if draw.random() > 0.03 and not again:
                yield Send(self._any(), in_transaction=False)
                continue
            records = again or [self._any() for _ in range(draw.randint(1, 15))]
            for record in records:
                while draw.random() < 0.4:
                    yield Send(self._any(), in_transaction=False)
                yield Send(record, in_transaction=True)
            how = draw.choice((COMMIT, COMMIT, COMMIT, ABORT, ABORT, FENCE))
            yield End(how)
            # An application tries what was aborted again, if it is still on time.
            again = [] if how == COMMIT or draw.random() < 0.5 else self._on_time(records)

    def _any(self) -> Record:
        draw = self._random
        partition = draw.randrange(self._partitions)
        kind = draw.random()
        if kind < 0.01:
            value, reason = draw.choice(_BROKEN)
            return Record(partition, value, reason=reason)
        if kind < 0.025:
            return self._rejected(partition, self._late_us(), LATE)
        if kind < 0.035:
            return self._rejected(partition, self._now_us + 2 * _HOUR_US, FUTURE)
        if kind < 0.18:
            return self._copy(partition)
        return self._payment(partition)

    def _late_us(self) -> int:
        """Behind the watermark that each partition had after the warm-up."""
        return self._start_us - int(self._horizon_us * self._random.uniform(1.5, 3))

    def _payment(self, partition: int) -> Record:
        self._clock_us += self._step_us
        event_us = self._clock_us - self._random.randrange(self._horizon_us // 10)
        amount = f"{self._random.randrange(1, 100_000)}.{self._random.randrange(10)}5"
        known = _Known(f"t{len(self._ids)}", amount, event_us, event_us)
        self._ids[known.transaction_id] = known
        self._recent.append(known)
        return _record(partition, known, event_us)

    def _copy(self, partition: int) -> Record:
        """Of an id that is known for certain: the same bytes, or stamped anew."""
        self._clock_us += self._step_us
        while self._recent[0].oldest_us < self._certain_us():
            self._recent.popleft()
        known = self._random.choice(self._recent)
        if known.oldest_us < self._certain_us():
            return self._payment(partition)
        event_us = known.event_us
        if self._random.random() < 0.3:
            event_us = self._random.randrange(self._certain_us(), self._clock_us)
            known.oldest_us = min(known.oldest_us, event_us)
        return _record(partition, known, event_us)

    def _rejected(self, partition: int, event_us: int, reason: Reason) -> Record:
        """With an id of its own, or that of a payment."""
        known = self._random.choice(self._recent)
        if self._random.random() < 0.5:
            known = _Known(f"{reason}-{event_us}", "1.25", event_us, event_us)
        return _record(partition, known, event_us, reason)

    def _on_time(self, records: list[Record]) -> list[Record]:
        return [
            record
            for record in records
            if record.reason
            or self._ids[record.transaction_id or ""].oldest_us >= self._certain_us()
        ]

    def _certain_us(self) -> int:
        """No watermark has passed this, nor will it before what is sent now is read."""
        return self._clock_us - self._horizon_us * 7 // 10


def _record(partition: int, known: _Known, event_us: int, reason: Reason | None = None) -> Record:
    fields = {
        "transaction_id": known.transaction_id,
        "event_time": moment_in_words(event_us),
        "amount": known.amount,
        "currency": "EUR",
    }
    value = json.dumps(fields).encode()
    return Record(partition, value, known.transaction_id, event_us, known.amount, reason)
