"""`demo`: 200,000 messages through an embedded Kafka, and a pipeline that is killed twice.

Among the payments are copies, late, future and broken messages.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from pipeline.demo.destination import BIGQUERY, DUCKDB, DemoDestination, demo_destination
from pipeline.demo.embedded_kafka import embedded_kafka
from pipeline.options.arguments import one_of, plain_parser
from pipeline.produce.command import KafkaSender
from pipeline.produce.message_generator import (
    COPY,
    FUTURE,
    INVALID,
    LATE,
    PAYMENT,
    STEP_US,
    GeneratedMessage,
    MessageGenerator,
)

MESSAGES: Final = 200_000
REACHED: Final = "reached the point"

_TOPIC: Final = "payments"
_COPIES_OF_ONE: Final = 10


def demo_command(argv: Sequence[str]) -> int:
    """0 when the figures in the tables are those of what was sent, else 1. Raises UsageError."""
    parser = plain_parser(
        "payment-pipeline demo",
        "Payments through an embedded Kafka, killed on the way, each exactly one row.",
    )
    parser.add_argument(
        "--destination",
        default=DUCKDB,
        help="duckdb (a file in this folder) or bigquery (a stand-in on this machine)",
    )
    kind = one_of("destination", parser.parse_strictly(argv).destination, [DUCKDB, BIGQUERY])
    with embedded_kafka() as servers, demo_destination(kind) as destination:
        demo = Demo(servers, destination)
        demo.play()
        return demo.verdict()


class Demo:
    """Sends messages, runs and kills the pipeline, and compares the tables with what was sent."""

    def __init__(self, servers: str, destination: DemoDestination) -> None:
        self._servers = servers
        self._destination = destination
        self._sent: list[GeneratedMessage] = []
        self._good = True

    def play(self) -> None:
        """Sends the messages in two halves; a run that reads each is killed and started again."""
        start_us = time.time_ns() // 1000 - MESSAGES * STEP_US
        early = MessageGenerator(
            1, start_us, duplicate_rate=0.015, invalid_rate=0.005, future_rate=0.001
        )
        half = MESSAGES // 2
        _say(
            f"{half:,} messages go to Kafka: payments, copies of them, broken ones, one payment"
            f" {_COPIES_OF_ONE} times more"
        )
        messages = early.take(half - _COPIES_OF_ONE)
        popular = next(message for message in messages if message.kind == PAYMENT)
        self._send(
            [
                *messages,
                *(popular.copy_with_key(b"again-%d" % number) for number in range(_COPIES_OF_ONE)),
            ]
        )
        _say("the pipeline reads them, and is killed with kill -9 while it writes")
        self._killed_run("append", 20)
        self._show_rows("nothing is visible of the killed run")
        _say("it is started again")
        self._run()
        later = MessageGenerator(
            2, start_us + half * STEP_US, duplicate_rate=0.015, late_rate=0.002, invalid_rate=0.005
        )
        _say(
            f"{half:,} more messages: this time some are late, and some are copies of what came"
            " before"
        )
        messages = later.take(half - 100)
        old = [
            message.copy_with_key(b"much-later")
            for message in self._sent[-5000:]
            if message.kind == PAYMENT
        ][:100]
        self._send([*messages, *old])
        _say(
            "the pipeline reads them, and is killed with kill -9 between the commits of two tables"
        )
        self._killed_run("commit", 1)
        self._show_rows("half of a run is visible")
        _say("it is started again, and finishes that run first")
        self._run()
        _say("check: has a row been lost, doubled or altered?")
        self._good &= self._call("check", *self._destination.arguments) == 0

    def verdict(self) -> int:
        """Prints the closing table; 1 if a figure is not what was sent."""
        kinds = Counter(message.kind for message in self._sent)
        charged_twice: Counter[str] = Counter()
        for message in self._sent:
            if message.kind == COPY:
                charged_twice[str(message.currency)] += message.amount or Decimal(0)  # type: ignore[assignment]
        query = self._destination.query
        rows = {name: self._destination.count(name) for name in _TABLES}
        unique = query("SELECT COUNT(DISTINCT transaction_id) AS n FROM {payment_transactions}")[0][
            "n"
        ]
        saved = query(
            "SELECT currency, SUM(amount) AS amount FROM {duplicate_transactions} GROUP BY currency"
        )
        money = {row["currency"]: row["amount"] for row in saved}
        print()
        print(f"{'':<26}{'sent':>12}{'in the tables':>16}")
        self._line("messages", len(self._sent), sum(rows.values()))
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
        if not self._good:
            print("a figure is off: the pipeline did not keep its guarantee", file=sys.stderr)
            return 1
        print("Every message has exactly one row. " + "\n".join(self._destination.closing))
        return 0

    def _line(self, name: str, sent: Any, found: Any) -> None:
        self._good &= sent == found
        print(f"{name:<26}{sent:>12,}{_plain(found):>16,}" + ("" if sent == found else "   <- off"))

    def _send(self, messages: Sequence[GeneratedMessage]) -> None:
        with KafkaSender({"bootstrap.servers": self._servers}) as sender:
            sender.send(_TOPIC, messages)
        self._sent += messages

    def _run(self) -> None:
        self._good &= self._call(*self._run_arguments()) == 0

    def _show_rows(self, what: str) -> None:
        rows = ", ".join(f"{name} {self._destination.count(name):,}" for name in _TABLES)
        print(f"{what}: {rows}", flush=True)

    def _run_arguments(self) -> list[str]:
        where = [
            f"--bootstrap_servers={self._servers}",
            f"--topic={_TOPIC}",
            *self._destination.arguments,
        ]
        return ["run", *where, f"--max_records_per_run={MESSAGES // 4}"]

    def _call(self, *arguments: str) -> int:
        """Runs a command that prints to this terminal, and returns its exit status."""
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments], check=False
        ).returncode

    def _killed_run(self, point: str, count: int) -> None:
        """Kills a run after the `count`-th call of the point (pipeline/demo/victim.py)."""
        command = [
            sys.executable,
            "-m",
            "pipeline.demo.victim",
            point,
            str(count),
            *self._run_arguments(),
        ]
        victim = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert victim.stdout is not None
        try:
            reached = any(REACHED in line for line in victim.stdout)
        finally:  # an interrupted demo leaves no process behind either
            if victim.poll() is None:
                os.killpg(victim.pid, signal.SIGKILL)
        self._good &= reached and victim.wait(10) == -signal.SIGKILL


def _say(text: str) -> None:
    print(f"\n== {text}", flush=True)


def _plain(value: Any) -> Any:
    """A decimal with two digits, enough for the demo's amounts; other values unchanged."""
    return value.quantize(Decimal("0.01")) if isinstance(value, Decimal) else value


_TABLES: Final = ("payment_transactions", "duplicate_transactions", "rejected_records")
