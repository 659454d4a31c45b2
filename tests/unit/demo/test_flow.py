"""Payments flow up to what is allowed, each of them is known, and errors come to the surface."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import pytest

from pipeline.demo.demonstration import copies_of
from pipeline.demo.flow import Flow
from pipeline.produce.message_generator import (
    COPY,
    LATE,
    PAYMENT,
    GeneratedMessage,
    MessageGenerator,
)

MANY = 1_000_000
"""Messages a second: as fast as it can."""


class Sender:
    """Takes messages; fails where it is to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.taken: list[GeneratedMessage] = []
        self.came = threading.Condition()
        self._error = error

    def send(self, _topic: str, messages: Iterable[GeneratedMessage]) -> None:
        if self._error is not None:
            raise self._error
        with self.came:
            self.taken += messages
            self.came.notify_all()

    def wait_for(self, number: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: len(self.taken) >= number, 30)


def running(flow: Flow, sender: Sender) -> threading.Thread:
    thread = threading.Thread(target=flow.run, args=(sender, "payments"), daemon=True)
    thread.start()
    return thread


def test_what_is_sent_is_known_and_no_more_than_allowed() -> None:
    flow, sender = Flow(MessageGenerator(1, 0), MANY), Sender()
    thread = running(flow, sender)
    flow.allow(500)
    sender.wait_for(500)
    assert flow.has_sent_all()
    flow.go_on_with(MessageGenerator(1, 0, late_rate=1.0))
    flow.allow(600)
    sender.wait_for(600)
    flow.add(copies_of(flow.sent, 20))
    sender.wait_for(620)
    assert flow.has_sent_all()
    flow.end()
    thread.join(30)
    assert flow.sent == sender.taken
    kinds = [message.kind for message in flow.sent]
    assert kinds == [PAYMENT] * 500 + [LATE] * 100 + [COPY] * 20


def test_an_error_ends_the_flow_and_is_raised_where_it_is_waited_for() -> None:
    flow = Flow(MessageGenerator(1, 0), MANY)
    thread = running(flow, Sender(OSError("no broker")))
    thread.join(30)
    with pytest.raises(OSError, match="no broker"):
        flow.has_sent_all()
