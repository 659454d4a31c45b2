"""`demo`: 200,000 messages through an embedded Kafka, and a pipeline that is killed twice.

Among the payments are copies, late, future and broken messages.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from pipeline.demo.demonstration import (
    Demonstration,
    copies_of,
    early_messages,
    later_messages,
    say,
)
from pipeline.demo.destination import BIGQUERY, DUCKDB, demo_destination
from pipeline.demo.embedded_kafka import embedded_kafka
from pipeline.options.arguments import one_of, plain_parser
from pipeline.produce.message_generator import PAYMENT, STEP_US
from transforms.model.errors import UsageError

MESSAGES: Final = 200_000
DIRECT: Final = "direct"
FLINK: Final = "flink"
SPARK: Final = "spark"
REACHED: Final = "reached the point"

_COPIES_OF_ONE: Final = 10


def demo_command(argv: Sequence[str]) -> int:
    """0 when the figures in the tables are those of what was sent, else 1. Raises UsageError."""
    parser = plain_parser(
        "payment-pipeline demo",
        "Payments through an embedded Kafka, killed on the way, each exactly one row.",
    )
    parser.add_argument(
        "--destination",
        help="duckdb (a file in this folder) or bigquery (a stand-in on this machine)",
    )
    parser.add_argument(
        "--runner",
        default=DIRECT,
        help="direct (bounded runs), flink (streaming; to duckdb) or spark (bounded runs on a"
        " cluster; to bigquery); the last two need Java 17 and Maven",
    )
    given = parser.parse_strictly(argv)
    runner = one_of("runner", given.runner, list(_DESTINATIONS))
    kind = given.destination or _DESTINATIONS[runner]
    one_of("destination", kind, [DUCKDB, BIGQUERY])
    if runner != DIRECT and kind != _DESTINATIONS[runner]:
        raise UsageError(
            f"--destination={kind} with --runner={runner}: that demo writes to"
            f" {_DESTINATIONS[runner]}. Leave --destination out."
        )
    # Beam alone takes more than a second.
    if runner == FLINK:
        from pipeline.demo.flink_demo import flink_demo

        return flink_demo()
    if runner == SPARK:
        from pipeline.demo.spark_demo import spark_demo

        return spark_demo()
    with embedded_kafka() as servers, demo_destination(kind) as destination:
        demo = Demo(servers, destination)
        demo.play()
        return demo.verdict()


_DESTINATIONS: Final = {DIRECT: DUCKDB, FLINK: DUCKDB, SPARK: BIGQUERY}
"""Where each runner's demo writes to."""


class Demo(Demonstration):
    """Sends messages, runs and kills the pipeline, and compares the tables with what was sent."""

    def play(self) -> None:
        """Sends the messages in two halves; a run that reads each is killed and started again."""
        start_us = time.time_ns() // 1000 - MESSAGES * STEP_US
        half = MESSAGES // 2
        say(
            f"{half:,} messages go to Kafka: payments, copies of them, broken ones, one payment"
            f" {_COPIES_OF_ONE} times more"
        )
        messages = early_messages(start_us).take(half - _COPIES_OF_ONE)
        popular = next(message for message in messages if message.kind == PAYMENT)
        self.send(
            [
                *messages,
                *(popular.copy_with_key(b"again-%d" % number) for number in range(_COPIES_OF_ONE)),
            ]
        )
        say("the pipeline reads them, and is killed with kill -9 while it writes")
        self._killed_run("append", 3)
        self.show_rows("nothing is visible of the killed run")
        say("it is started again")
        self._run()
        say(
            f"{half:,} more messages: this time some are late, and some are copies of what came"
            " before"
        )
        messages = later_messages(start_us + half * STEP_US).take(half - 100)
        self.send([*messages, *copies_of(self.sent[-5000:], 100)])
        say("the pipeline reads them, and is killed with kill -9 between the commits of two tables")
        self._killed_run("commit", 1)
        self.show_rows("half of a run is visible")
        say("it is started again, and finishes that run first")
        self._run()
        self.check()

    def _run(self) -> None:
        self.call(*self._run_arguments())

    def _run_arguments(self) -> list[str]:
        return ["run", *self.source_and_destination, f"--max_records_per_run={MESSAGES // 4}"]

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
        self.good &= reached and victim.wait(10) == -signal.SIGKILL
