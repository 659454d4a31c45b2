"""The users' load with copies of payments that a destination had before the job began."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count, takewhile

from benchmarks.steady_load import at_once, evenly, steady_messages, steady_sender
from benchmarks.stored_payments import event_time_of, id_of
from pipeline.produce.message_generator import GeneratedMessage
from tests.support.kafka_broker import KafkaBroker
from tests.support.payment_sender import now_us, payment

STORED = "copy of a stored payment"
"""Kind of a message, beside those of message_generator.py."""

_STORED_SHARE = 0.05


class LoadWithCopies:
    """2 % copies of recent payments, 5 % of the payments of stored_payments.py.

    messages_a_second: what is wanted, at least 1,000; `rate` is what was reached. ids, first_us,
    span_us: as those were written. kinds: messages that were sent, by their kind; all of them are
    in Kafka at the end of `running`.
    """

    def __init__(
        self,
        broker: KafkaBroker,
        topic: str,
        messages_a_second: int,
        ids: int,
        first_us: int,
        span_us: int,
    ) -> None:
        self._broker, self._topic, self._wanted = broker, topic, messages_a_second
        self._ids, self._first_us, self._span_us = ids, first_us, span_us
        self._random = random.Random(1)
        self._over = threading.Event()
        self.kinds: Counter[str] = Counter()
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sends in a thread until the end of the block. Raises GuaranteeError, TryAgainLater."""
        with ThreadPoolExecutor(1) as threads:
            sending = threads.submit(self._send)
            try:
                yield
            finally:
                self._over.set()
        sending.result()

    @property
    def rate(self) -> float:
        """Messages a second, as they were sent."""
        return self.kinds.total() / self.seconds

    def _send(self) -> None:
        generator, began = steady_messages(self._wanted), time.monotonic()
        each = at_once(self._wanted)
        stored = round(each * _STORED_SHARE)
        with steady_sender(self._broker) as sender:
            for _ in evenly(takewhile(lambda _: not self._over.is_set(), count())):
                copies = [self._copy() for _ in range(stored)]
                messages = [*generator.take(each - stored), *copies]
                sender.send(self._topic, messages)
                self.kinds.update(message.kind for message in messages)
        self.seconds = time.monotonic() - began

    def _copy(self) -> GeneratedMessage:
        """As the payment was, or stamped anew."""
        number = self._random.randrange(1, self._ids)
        stamped = self._random.random() < 0.5
        time_us = (
            now_us() if stamped else event_time_of(number, self._ids, self._first_us, self._span_us)
        )
        key, value = id_of(number).encode(), payment(id_of(number), time_us)
        return GeneratedMessage(key, value, STORED, id_of(number), None, None)
