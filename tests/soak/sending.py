"""Sends the traffic of a schedule from a thread, and learns where each record lies in Kafka."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from tests.soak.traffic import COMMIT, FENCE, End, Record, Send, Traffic

RATE: Final = 300
"""Records a second."""

_SECONDS: Final = 300.0
_SLICE: Final = 15

Coordinate = tuple[int, int]
"""(partition, offset)."""


@dataclass
class Log:
    """What lies in the topic: (partition, offset) -> record, by what became of its transaction.

    Offsets that are in neither hold the markers of transactions.
    """

    committed: dict[Coordinate, Record] = field(default_factory=dict)
    aborted: dict[Coordinate, Record] = field(default_factory=dict)

    def write(self, place: Path) -> None:
        """One JSON object a line, for a person who looks into a failure."""
        with place.open("w") as lines:
            for state in ("committed", "aborted"):
                for (partition, offset), record in sorted(getattr(self, state).items()):
                    text = asdict(record) | {"partition": partition, "offset": offset}
                    lines.write(json.dumps(text | {"state": state}, default=repr) + "\n")


class Sending:
    """A thread that sends as many records as it is allowed to, 300 a second at most."""

    def __init__(self, servers: str, topic: str, traffic: Traffic) -> None:
        self.log = Log()
        self._traffic = traffic
        self._topic = topic
        self._config = {
            "bootstrap.servers": servers,
            "linger.ms": 5,
            "enable.idempotence": True,
            "log_level": 2,
        }
        self._plain = Producer(self._config)
        self._in_transactions: Producer | None = None
        self._open: dict[Coordinate, Record] | None = None
        self._changed = threading.Condition()
        self._allowed = self._sent = 0
        self._last = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def send_early(self) -> None:
        """Sends the warm-up, and waits until Kafka has it."""
        for action in self._traffic.early():
            self._do(action)
        self._flush(self._plain)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def allow(self, records: int) -> None:
        """Sends until there are so many, besides the warm-up."""
        with self._changed:
            self._allowed = max(self._allowed, records)
            self._changed.notify_all()

    def wait_until_sent(self, records: int) -> None:
        """Raises AssertionError after five minutes, or what the thread has raised."""
        with self._changed:
            there = self._changed.wait_for(
                lambda: self._error is not None or self._sent >= records, _SECONDS
            )
            if self._error is not None:
                raise self._error
            assert there, f"{self._sent} of {records} records were sent within {_SECONDS} s"

    def finish(self) -> None:
        """Ends an open transaction, and waits until Kafka has all that was sent."""
        with self._changed:
            self._last = True
            self._changed.notify_all()
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive(), "the sender does not end"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._send_all(self._traffic.actions())
            self._flush(self._plain)
        except BaseException as error:  # the waiting thread raises it
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _send_all(self, actions: Iterator[Send | End]) -> None:
        began = time.monotonic()
        for action in actions:
            with self._changed:
                self._changed.wait_for(lambda: self._last or self._sent < self._allowed)
                if self._last:
                    self._end_open(End(COMMIT))
                    return
            self._do(action)
            if isinstance(action, End):
                continue
            with self._changed:
                self._sent += 1
                self._changed.notify_all()
                if self._sent % _SLICE == 0:
                    ahead = self._sent / RATE - (time.monotonic() - began)
                    self._changed.wait_for(lambda: self._last, max(0.0, ahead))

    def _do(self, action: Send | End) -> None:
        if isinstance(action, End):
            self._end_open(action)
            return
        record, producer, place = action.record, self._plain, self.log.committed
        if action.in_transaction:
            producer = self._transactional()
            if self._open is None:
                producer.begin_transaction()
                self._open = {}
            place = self._open
        producer.produce(
            self._topic,
            record.value,
            partition=record.partition,
            on_delivery=lambda error, message: self._delivered(place, record, error, message),
        )
        producer.poll(0)

    def _delivered(
        self, place: dict[Coordinate, Record], record: Record, error: Any, message: Any
    ) -> None:
        if error is not None:
            raise KafkaException(error)
        place[record.partition, message.offset()] = record

    def _transactional(self) -> Producer:
        if self._in_transactions is None:
            self._in_transactions = Producer(
                {**self._config, "transactional.id": f"{self._topic}-sender"}
            )
            _patiently(self._in_transactions.init_transactions)
        return self._in_transactions

    def _end_open(self, end: End) -> None:
        if self._open is None:
            return
        producer, records, self._open = self._transactional(), self._open, None
        self._flush(producer)
        if end.how == COMMIT:
            _patiently(producer.commit_transaction)
            self.log.committed |= records
            return
        if end.how == FENCE:
            self._in_transactions = None
            self._transactional()
        else:
            _patiently(producer.abort_transaction)
        self.log.aborted |= records

    def _flush(self, producer: Producer) -> None:
        assert producer.flush(_SECONDS) == 0, "Kafka does not take what is sent"


def _patiently(call: Callable[[], Any]) -> None:
    """A broker that restarts answers later."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            call()
            return
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise
