"""Payments as a payment system would send them: with copies, late, future and broken messages.

The same seed and start time give the same messages.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import accumulate
from typing import Final

from transforms.model.errors import UsageError

PAYMENT: Final = "payment"
COPY: Final = "copy"
LATE: Final = "late"
FUTURE: Final = "future"
INVALID: Final = "invalid"

STEP_US: Final = 1000
"""Event time between two messages, unless said otherwise: a thousand payments a second."""

_RECENT: Final = 10_000
_HOURS_LATE_US: Final = 6 * 3_600_000_000
_CURRENCIES: Final = ("EUR", "USD", "GBP", "JPY", "CHF")
_METHODS: Final = ("CARD", "TRANSFER", "WALLET", "DIRECT_DEBIT")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_BROKEN: Final[tuple[bytes | None, ...]] = (
    None,
    b"",
    b"not json",
    b"null",
    b"[1, 2]",
    b'{"transaction_id":"broken',
    b'{"transaction_id":"a"}{"transaction_id":"b"}',
    b'{"transaction_id":"","event_time":"2026-01-01T00:00:00Z","amount":"1.00","currency":"EUR"}',
    b'{"transaction_id":"a","event_time":"yesterday","amount":"1.00","currency":"EUR"}',
    b'{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","amount":"1.0000000001","currency":"EUR"}',
    b'{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","amount":100000000000000000000,"currency":"EUR"}',
    b'{"transaction_id":"a","event_time":"2026-01-01T00:00:00Z","currency":"EUR"}',
    b'{"transaction_id":"\xff\xfe","event_time":"2026-01-01T00:00:00Z","amount":"1.00","currency":"EUR"}',
    b"\x00" * 40,
    b"[" * 5000,
)


@dataclass(frozen=True, slots=True)
class GeneratedMessage:
    """A Kafka message, and what it stands for.

    kind: payment, copy (of an earlier payment), late, future or invalid. transaction_id, amount and
    currency: None where the kind is invalid.
    """

    key: bytes
    value: bytes | None
    kind: str
    transaction_id: str | None
    amount: Decimal | None
    currency: str | None

    def copy_with_key(self, key: bytes) -> GeneratedMessage:
        """The same bytes again; another key may lead to another partition."""
        return replace(self, key=key, kind=COPY)


class MessageGenerator:
    """Messages whose event times rise evenly, by a millisecond each unless another step is given.

    A copy repeats one of the last 10,000 payments byte by byte, half of the time with another key,
    so that it may go to another partition. A late message lies six hours behind; it is late for a
    run only if an earlier run has moved the watermark past it. A future message lies a day ahead of
    its time.
    """

    def __init__(
        self,
        seed: int,
        start_time_us: int,
        duplicate_rate: float = 0.0,
        late_rate: float = 0.0,
        invalid_rate: float = 0.0,
        future_rate: float = 0.0,
        step_us: int = STEP_US,
    ) -> None:
        """start_time_us: microseconds since 1970. Rates are shares of all messages, from 0 to 1.
        step_us: event time between two messages, in microseconds; their text has milliseconds.

        Raises UsageError when the rates add up to more than 1.
        """
        self._bounds = tuple(accumulate([duplicate_rate, late_rate, invalid_rate, future_rate]))
        if self._bounds[-1] > 1:
            raise UsageError(
                f"the rates of copies, late and invalid messages add up to {self._bounds[-1]}; at"
                " most 1 is possible. Lower one."
            )
        # The start time is part of the seed, so that a later call sends other payments.
        self._random = random.Random(f"{seed} {start_time_us}")
        self._prefix = f"{self._random.getrandbits(32):08x}"
        self._time_us = start_time_us
        self._step_us = step_us
        self._count = 0
        self._recent: list[GeneratedMessage] = []

    def take(self, messages: int) -> list[GeneratedMessage]:
        """The next `messages` messages."""
        return [self._next() for _ in range(messages)]

    def _next(self) -> GeneratedMessage:
        copies, late, invalid, future = self._bounds
        draw = self._random.random()
        self._count += 1
        self._time_us += self._step_us
        if draw < copies and self._recent:
            original = self._random.choice(self._recent)
            key = original.key if self._random.random() < 0.5 else b"retry-%d" % self._count
            return original.copy_with_key(key)
        if copies <= draw < late:
            return self._payment(LATE, self._time_us - _HOURS_LATE_US)
        if late <= draw < invalid:
            return GeneratedMessage(
                b"broken-%d" % self._count, self._random.choice(_BROKEN), INVALID, None, None, None
            )
        if invalid <= draw < future:
            return self._payment(FUTURE, self._time_us + 86_400_000_000)
        message = self._payment(PAYMENT, self._time_us)
        if len(self._recent) < _RECENT:
            self._recent.append(message)
        else:
            self._recent[self._count % _RECENT] = message
        return message

    def _payment(self, kind: str, event_time_us: int) -> GeneratedMessage:
        bits = self._random.getrandbits(64)
        transaction_id = f"{self._prefix}-{self._count:012d}-{bits & 0xFFFFFFFFFF:010x}"
        cents = 100 + bits % 500_000
        time = (
            (_EPOCH + timedelta(microseconds=event_time_us))
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z")
        )
        amount = f"{cents // 100}.{cents % 100:02d}"
        # Real systems send amounts as strings and as numbers; both must be exact.
        text = f'"{amount}"' if bits & 1 else amount
        currency = _CURRENCIES[bits % 5]
        value = (
            f'{{"transaction_id":"{transaction_id}","event_time":"{time}","amount":{text},'
            f'"currency":"{currency}","payer_id":"payer-{bits >> 40:016d}",'
            f'"payee_id":"payee-{bits % 9973:016d}","status":"AUTHORIZED",'
            f'"payment_method":"{_METHODS[bits % 4]}"}}'
        ).encode()
        return GeneratedMessage(
            transaction_id.encode(), value, kind, transaction_id, Decimal(amount), currency
        )
