"""Payments that flow to Kafka at a steady rate, while the demo does something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import GeneratedMessage, MessageGenerator

_TICK_SECONDS: Final = 0.05
_CATCH_UP_SECONDS: Final = 1.0


class Flow:
    """Sends what a generator makes, up to the number that is allowed. Made by `flowing`.

    sent: every message, in order; complete once the block of `flowing` has ended.
    """

    def __init__(self, generator: MessageGenerator, rate: int) -> None:
        """rate: messages a second."""
        self.sent: list[GeneratedMessage] = []
        self._generator = generator
        self._rate = rate
        self._allowed = 0
        self._extra: list[GeneratedMessage] = []
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._error: Exception | None = None

    def allow(self, number: int) -> None:
        """So many messages in all."""
        self._allowed = number

    def go_on_with(self, generator: MessageGenerator) -> None:
        """From here on it makes the messages."""
        with self._guard:
            self._generator = generator

    def add(self, messages: Sequence[GeneratedMessage]) -> None:
        """Sends these too, beside the number that is allowed."""
        with self._guard:
            self._extra += messages
            self._allowed += len(messages)

    def has_sent_all(self) -> bool:
        """Whether all that is allowed is on its way. Raises the error that has ended the flow."""
        if self._error is not None:
            raise self._error
        return len(self.sent) >= self._allowed

    def run(self, sender: KafkaSender, topic: str) -> None:
        """Until `end`. An error is kept for `has_sent_all`."""
        try:
            self._run(sender, topic)
        except Exception as error:
            self._error = error

    def end(self) -> None:
        """No further message is sent."""
        self._ended.set()

    def _run(self, sender: KafkaSender, topic: str) -> None:
        due, before = 0.0, time.monotonic()
        while not self._ended.wait(_TICK_SECONDS):
            now = time.monotonic()
            due = min(due + (now - before) * self._rate, self._rate * _CATCH_UP_SECONDS)
            before = now
            with self._guard:
                extra, self._extra = self._extra, []
                room = self._allowed - len(self.sent) - len(extra)
                number = max(0, min(int(due), room))
                messages = [*extra, *self._generator.take(number)]
                self.sent += messages
            due -= number
            sender.send(topic, messages)


@contextmanager
def flowing(servers: str, topic: str, generator: MessageGenerator, rate: int) -> Iterator[Flow]:
    """The flow runs for as long as the block; at its end Kafka has all that it has sent."""
    flow = Flow(generator, rate)
    with KafkaSender({"bootstrap.servers": servers}) as sender:
        thread = threading.Thread(target=flow.run, args=(sender, topic), name="flow", daemon=True)
        thread.start()
        try:
            yield flow
        finally:
            flow.end()
            thread.join()
