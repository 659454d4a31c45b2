"""`produce`: sends generated payments to a topic, to try the pipeline out."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from pipeline.counted import counted
from pipeline.kafka_admin import KafkaAdmin
from pipeline.logs import FORMATS
from pipeline.options.arguments import (
    Arguments,
    add_output_arguments,
    one_of,
    plain_parser,
    required,
)
from pipeline.options.consumer_config import load_consumer_config
from pipeline.options.quantities import parse_share, parse_whole
from pipeline.produce.message_generator import STEP_US, GeneratedMessage, MessageGenerator
from transforms.decode.timestamps import NotATime, TimeOutOfRange, parse_timestamp
from transforms.model.errors import GuaranteeError, TryAgainLater, UsageError
from transforms.model.waiting import waiting_for
from transforms.read.broker_errors import BrokerErrors

_CONNECTION: Final = (
    "security.",
    "sasl.",
    "ssl.",
    "socket.",
    "broker.",
    "reconnect.",
    "client.",
    "enable.ssl",
    "bootstrap.servers",
    "debug",
)
_AT_ONCE: Final = 10_000
_FLUSH_SECONDS: Final = 60.0


def produce_parser() -> Arguments:
    """The options of `produce`. Values stay text; produce_command checks them."""
    parser = plain_parser(
        "payment-pipeline produce",
        "Sends generated payments, with copies, late and invalid messages.",
    )
    parser.add_argument("--bootstrap_servers", metavar="HOST:PORT", help="Required.")
    parser.add_argument("--topic", metavar="NAME", help="Required.")
    parser.add_argument("--messages", metavar="N", help="how many to send. Required.")
    parser.add_argument(
        "--duplicate_rate",
        default="0",
        metavar="SHARE",
        help="copies of earlier payments, some to another partition",
    )
    parser.add_argument(
        "--late_rate",
        default="0",
        metavar="SHARE",
        help="six hours behind: late for a run that follows another run",
    )
    parser.add_argument(
        "--invalid_rate", default="0", metavar="SHARE", help="broken in fifteen different ways"
    )
    parser.add_argument(
        "--seed",
        default="1",
        metavar="N",
        help="the same seed and start time give the same messages",
    )
    parser.add_argument(
        "--start_time",
        metavar="TIME",
        help="RFC 3339 event time of the first message; default: so that the last one is now",
    )
    parser.add_argument(
        "--consumer_config",
        metavar="FILE",
        help="the file that run takes; its connection and security settings are used",
    )
    add_output_arguments(parser, "print what was sent as JSON")
    return parser


def produce_command(argv: Sequence[str]) -> int:
    """Sends the messages and returns 0.

    Raises UsageError, or GuaranteeError when the broker does not acknowledge the messages.
    """
    given = produce_parser().parse_strictly(argv)
    one_of("log_format", given.log_format, FORMATS)
    servers = required(given, "bootstrap_servers", "localhost:9092")
    topic = required(given, "topic", "payments")
    messages = parse_whole("messages", required(given, "messages", "100000"), 1, 10**10)
    start_us = _start_time(given.start_time, messages)
    generator = MessageGenerator(
        parse_whole("seed", given.seed, 0, 2**32 - 1),
        start_us,
        parse_share("duplicate_rate", given.duplicate_rate),
        parse_share("late_rate", given.late_rate),
        parse_share("invalid_rate", given.invalid_rate),
    )
    settings = load_consumer_config(given.consumer_config, servers, None)
    with KafkaAdmin(settings) as admin:
        admin.topic_state(topic, 0)
    connection = {key: value for key, value in settings.items() if key.startswith(_CONNECTION)}
    kinds: Counter[str] = Counter()
    with KafkaSender(connection) as sender:
        for start in range(0, messages, _AT_ONCE):
            batch = generator.take(min(_AT_ONCE, messages - start))
            sender.send(topic, batch)
            kinds.update(message.kind for message in batch)
    if given.json:
        figures = {"topic": topic, "sent": messages, "by_kind": dict(sorted(kinds.items()))}
        print(json.dumps({"exit_status": 0, "error": None, **figures}))
        return 0
    print(
        f"sent {counted(messages, 'message')} to {topic}: "
        + ", ".join(f"{kind} {count:,}" for kind, count in sorted(kinds.items()))
    )
    return 0


class KafkaSender:
    """A producer that raises GuaranteeError unless every message is acknowledged.

    Use it as a context manager: leaving it waits for the broker.
    """

    def __init__(self, connection: dict[str, str]) -> None:
        self._servers = connection["bootstrap.servers"]
        self._errors = BrokerErrors(self._servers)
        settings: dict[str, Any] = {
            "compression.type": "zstd",
            "linger.ms": 50,
            "enable.idempotence": True,
        }
        self._producer = Producer(
            {
                **settings,
                **self._errors.log.settings(connection),
                "error_cb": self._errors.remember,
                "on_delivery": self._delivered,
            }
        )
        self._failed: KafkaError | None = None

    def __enter__(self) -> KafkaSender:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            return
        with waiting_for(f"Kafka at {self._servers}: messages to be taken", self._why):
            left = self._producer.flush(_FLUSH_SECONDS)
        self._raise_if_failed()
        if left:
            why = f" ({self._errors.reason})" if self._errors.reason else ""
            raise TryAgainLater(
                f"--bootstrap_servers={self._servers}:"
                f" {counted(left, 'message was', 'messages were')} not taken within"
                f" {_FLUSH_SECONDS:.0f} s{why}. Start the broker or correct the address; some"
                " messages may have been sent."
            )

    def send(self, topic: str, messages: Iterable[GeneratedMessage]) -> None:
        """Queues the messages; waits while the queue is full. Raises GuaranteeError."""
        for message in messages:
            while True:
                try:
                    self._producer.produce(topic, message.value, message.key)
                    break
                except BufferError:
                    self._producer.poll(0.1)
                    self._raise_if_failed()
        self._producer.poll(0)
        self._raise_if_failed()

    def _why(self) -> str | None:
        return self._errors.reason

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        self._failed = self._failed or error

    def _raise_if_failed(self) -> None:
        self._errors.raise_if_final()
        if self._failed is not None:
            raise GuaranteeError(
                f"Kafka at {self._servers} did not take a message ({KafkaException(self._failed)})."
            )


def _start_time(text: str | None, messages: int) -> int:
    if text is None:
        return time.time_ns() // 1000 - messages * STEP_US
    try:
        return parse_timestamp(text)
    except (NotATime, TimeOutOfRange) as error:
        raise UsageError(
            f"--start_time={text}: not an RFC 3339 time such as 2026-01-01T00:00:00Z."
        ) from error
