"""What all demos share: what was sent, and the closing table that holds the tables against it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from pipeline.demo.destination import DemoDestination
from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import (
    COPY,
    FUTURE,
    INVALID,
    LATE,
    PAYMENT,
    GeneratedMessage,
    MessageGenerator,
)
from transforms.model.tables import ROW_TABLES

TOPIC: Final = "payments"


class Demonstration:
    """Knows what was sent, calls commands, and compares the tables with it.

    sent: every message, in order. good: no step has failed so far.
    """

    def __init__(self, servers: str, destination: DemoDestination) -> None:
        """servers: Kafka's bootstrap servers."""
        self.servers = servers
        self.destination = destination
        self.sent: list[GeneratedMessage] = []
        self.good = True

    @property
    def source_and_destination(self) -> list[str]:
        """The options of `run` that say where payments come from and go to."""
        where = [f"--bootstrap_servers={self.servers}", f"--topic={TOPIC}"]
        return [*where, *self.destination.arguments]

    def send(self, messages: Sequence[GeneratedMessage]) -> None:
        """Sends them all, and waits until Kafka has them."""
        with KafkaSender({"bootstrap.servers": self.servers}) as sender:
            sender.send(TOPIC, messages)
        self.sent += messages

    def call(self, *arguments: str) -> None:
        """Runs a command that prints to this terminal; it must end with exit status 0."""
        command = [sys.executable, "-m", "pipeline", *arguments]
        self.good &= subprocess.run(command, check=False).returncode == 0

    def check(self) -> None:
        """Runs `check` on the tables."""
        say("check: has a row been lost, doubled or altered?")
        self.call("check", *self.destination.arguments)

    def show_rows(self, what: str) -> None:
        """Prints how many rows each table has, which no process may have open."""
        rows = ", ".join(f"{name} {self.destination.count(name):,}" for name in ROW_TABLES)
        print(f"{what}: {rows}", flush=True)

    def verdict(self) -> int:
        """Prints the closing table; 1 if a figure is not what was sent."""
        kinds = Counter(message.kind for message in self.sent)
        charged_twice: defaultdict[str, Decimal] = defaultdict(Decimal)
        for message in self.sent:
            if message.kind == COPY:
                charged_twice[str(message.currency)] += message.amount or 0
        query = self.destination.query
        rows = {name: self.destination.count(name) for name in ROW_TABLES}
        unique = query("SELECT COUNT(DISTINCT transaction_id) AS n FROM {payment_transactions}")[0][
            "n"
        ]
        saved = query(
            "SELECT currency, SUM(amount) AS amount FROM {duplicate_transactions} GROUP BY currency"
        )
        money = {row["currency"]: row["amount"] for row in saved}
        print()
        print(f"{'':<26}{'sent':>12}{'in the tables':>16}")
        self._line("messages", len(self.sent), sum(rows.values()))
        self._line("unique payments", kinds[PAYMENT], unique)
        self._line("accepted", kinds[PAYMENT], rows["payment_transactions"])
        self._line("duplicates", kinds[COPY], rows["duplicate_transactions"])
        self._line(
            "rejected", kinds[LATE] + kinds[FUTURE] + kinds[INVALID], rows["rejected_records"]
        )
        for currency in sorted(charged_twice):
            self._line(
                f"not charged twice, {currency}",
                charged_twice[currency],
                money.get(currency, Decimal(0)),
            )
        print()
        if not self.good:
            print("a figure is off: the pipeline did not keep its guarantee", file=sys.stderr)
            return 1
        print("Every message has exactly one row. " + "\n".join(self.destination.closing))
        return 0

    def _line(self, name: str, sent: Any, found: Any) -> None:
        self.good &= sent == found
        print(f"{name:<26}{sent:>12,}{_plain(found):>16,}" + ("" if sent == found else "   <- off"))


def say(text: str) -> None:
    """Prints what the demo does next."""
    print(f"\n== {text}", flush=True)


def early_messages(start_us: int) -> MessageGenerator:
    """Payments from this event time on, in microseconds; with copies, future and broken ones."""
    return MessageGenerator(
        1, start_us, duplicate_rate=0.015, invalid_rate=0.005, future_rate=0.001
    )


def later_messages(start_us: int) -> MessageGenerator:
    """Others from this event time on, in microseconds; with copies, late and broken ones."""
    return MessageGenerator(2, start_us, duplicate_rate=0.015, late_rate=0.002, invalid_rate=0.005)


def copies_of(messages: Sequence[GeneratedMessage], number: int) -> list[GeneratedMessage]:
    """So many of the payments again, with another key."""
    again = (each.copy_with_key(b"much-later") for each in messages if each.kind == PAYMENT)
    return [copy for copy, _ in zip(again, range(number), strict=False)]


def _plain(value: Any) -> Any:
    """A decimal with two digits, enough for the demo's amounts; other values unchanged."""
    return value.quantize(Decimal("0.01")) if isinstance(value, Decimal) else value
