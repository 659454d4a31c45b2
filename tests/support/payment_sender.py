"""Sends payments to a real broker, and remembers what it has sent."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, Producer

from transforms.model.moments import moment_in_words

PARTITIONS = 3
"""Of the topic of tests/cluster/conftest.py."""

_PAUSE_SECONDS = 0.2
_SENT_SECONDS = 120
_SECOND_US = 1_000_000


def now_us() -> int:
    """The clock, in microseconds."""
    return time.time_ns() // 1000


@dataclass
class Sent:
    """What a topic has got. ids: copies by transaction_id. broken: records that are no payment."""

    ids: Counter[str] = field(default_factory=Counter)
    broken: int = 0

    @property
    def records(self) -> int:
        return self.ids.total() + self.broken

    def copy(self) -> Sent:
        """What was sent so far."""
        return Sent(Counter(self.ids), self.broken)


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` every 0.2 s, in a thread, until the end of the block.

    Raises what `act` has raised.
    """
    over = threading.Event()

    def act_on() -> None:
        while not over.wait(_PAUSE_SECONDS):
            act()

    with ThreadPoolExecutor(1) as threads:
        acting = threads.submit(act_on)
        try:
            yield
        finally:
            over.set()
    acting.result()


class Sender:
    """Sends payments to random partitions, with copies near and far, and broken records."""

    def __init__(
        self, servers: str, topic: str, partitions: int, seed: int, sent: Sent | None = None
    ) -> None:
        """sent: to go on with what another one has sent."""
        # What a broker that dies has taken, and not acknowledged, must not be there twice.
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "linger.ms": 5,
                "enable.idempotence": True,
                "log_level": 2,
                "reconnect.backoff.max.ms": 500,
            }
        )
        self._topic, self._partitions = topic, partitions
        self.seed = seed
        self._random = random.Random(seed)
        self.sent = Sent() if sent is None else sent

    def send(self, records: int, event_time_us: int) -> None:
        """Event times lie within a minute before `event_time_us`. Waits until all are there."""
        for _ in range(records):
            if self._random.random() < 0.01:
                value = b"broken"
                self.sent.broken += 1
            else:
                value = self._copy(self._key(), event_time_us)
            self._produce(value)
        assert self._producer.flush(_SENT_SECONDS) == 0

    def send_payment(self, key: str, event_time_us: int) -> None:
        """One payment with exactly this event time. Waits until it is there."""
        self.sent.ids[key] += 1
        self._produce(payment(key, event_time_us))
        assert self._producer.flush(_SENT_SECONDS) == 0

    def steadily(
        self, records: int, event_time_us: Callable[[], int]
    ) -> AbstractContextManager[None]:
        """Sends some records every 0.2 s, in a thread, until the end of the block.

        event_time_us: called before each `send`.
        """
        return meanwhile(lambda: self.send(records, event_time_us()))

    @staticmethod
    def _delivered(error: KafkaError | None, _: object) -> None:
        assert error is None, error

    def send_copies(self, records: int, event_time_us: int) -> None:
        """Of payments that were sent before; else as `send`."""
        for key in self._random.choices(list(self.sent.ids), k=records):
            self._produce(self._copy(key, event_time_us))
        assert self._producer.flush(_SENT_SECONDS) == 0

    def _copy(self, key: str, event_time_us: int) -> bytes:
        self.sent.ids[key] += 1
        return payment(key, event_time_us - self._random.randrange(60 * _SECOND_US))

    def _produce(self, value: bytes) -> None:
        partition = self._random.randrange(self._partitions)
        self._producer.produce(self._topic, value, partition=partition, on_delivery=self._delivered)
        self._producer.poll(0)

    def _key(self) -> str:
        known = len(self.sent.ids)
        if known and self._random.random() < 0.05:
            return f"t{self._random.randrange(known)}"
        return f"t{known}"


def payment(key: str, event_time_us: int) -> bytes:
    """A record's value."""
    time_text = moment_in_words(event_time_us)
    return json.dumps(
        {"transaction_id": key, "event_time": time_text, "amount": "12.50", "currency": "EUR"}
    ).encode()
