"""The users' load for some time, and the latency of the payments after the job has warmed up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import GeneratedMessage, MessageGenerator
from pipeline.streaming.figures import JobFigures
from tests.support.kafka_broker import KafkaBroker
from transforms import metrics

RATE = 10_000
"""Messages a second."""

WARM_UP_SECONDS = 30
"""The first seconds of a job, whose Java is cold: their payments are told apart."""

_SLICE_SECONDS = 0.02


def send_steadily(
    broker: KafkaBroker,
    topic: str,
    seconds: int,
    warm: Callable[[], None] = lambda: None,
    rate: int = RATE,
    sent: Callable[[list[GeneratedMessage]], None] = lambda _: None,
) -> float:
    """Sends `rate` messages a second, evenly, for so many seconds after WARM_UP_SECONDS.

    warm: called between the two; what it takes is caught up. sent: called with each slice of
    messages. Returns the rate that was reached: a machine with too much to do does not keep up.
    """
    generator = steady_messages(rate)
    warm_up = round(WARM_UP_SECONDS / _SLICE_SECONDS)
    slices = warm_up + round(seconds / _SLICE_SECONDS)
    started = time.monotonic()
    with steady_sender(broker) as sender:
        for number in evenly(range(slices)):
            if number == warm_up:
                warm()
            messages = generator.take(at_once(rate))
            sender.send(topic, messages)
            sent(messages)
    return slices * at_once(rate) / (time.monotonic() - started)


def steady_messages(rate: int = RATE) -> MessageGenerator:
    """Payments with 2 % copies, each with about the event time of its sending at this rate."""
    # A faster clock would soon be one of the future.
    now_us = time.time_ns() // 1000
    return MessageGenerator(2, now_us, duplicate_rate=0.02, step_us=1_000_000 // rate)


def steady_sender(broker: KafkaBroker) -> KafkaSender:
    """A sender keeps messages back to send many at once, unless it is not let: this one is not."""
    return KafkaSender({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": "1"})


def at_once(rate: int = RATE) -> int:
    """How many messages to send for each number of `evenly`."""
    return round(rate * _SLICE_SECONDS)


def evenly(numbers: Iterable[int]) -> Iterator[int]:
    """The numbers, from 0 on, 50 a second; a delay is caught up."""
    started = time.monotonic()
    for number in numbers:
        yield number
        ahead = started + (number + 1) * _SLICE_SECONDS - time.monotonic()
        time.sleep(max(0.0, ahead))


def since(before: JobFigures, now: JobFigures) -> JobFigures:
    """What the counters have counted between two moments."""
    return JobFigures(
        {name: value - before.values.get(name, 0) for name, value in now.values.items()}, now.at_us
    )


def latency_in_words(figures: JobFigures, share: float) -> str:
    """The two bounds that the latency of this share of the payments lies between."""
    bound = figures.latency_ms(share)
    if bound is None:
        return f"above {metrics.LATENCY_BOUNDS_MS[-1]:,} ms"
    lower = max((each for each in metrics.LATENCY_BOUNDS_MS if each < bound), default=0)
    return f"{lower:,} to {bound:,} ms"
