"""Starts a job again and again, each time from the savepoint of the one before."""

from __future__ import annotations

import time
from contextlib import redirect_stdout
from pathlib import Path

from tests.soak.servers import Servers
from tests.support.payment_sender import Sender
from tests.support.stored_payments import assert_each_payment_once
from tests.support.streaming_command import StreamingCommand

_PARTITIONS = 3
_TOPIC = "starts"


def start_again_and_again(starts: int, servers: Servers, folder: Path) -> int:
    """Prints a line for each start; 0. Raises AssertionError where one hangs or a row is wrong."""
    address = servers.broker.bootstrap_servers
    servers.create_topic(_TOPIC, _PARTITIONS)
    place = folder / _TOPIC
    place.mkdir()
    sender = Sender(address, _TOPIC, _PARTITIONS, seed=1)
    command = StreamingCommand(servers.cluster, address, _TOPIC, place)
    try:
        for number in range(1, starts + 1):
            began = time.monotonic()
            with (place / "driver.log").open("a") as log, redirect_stdout(log):
                sender.send(30, time.time_ns() // 1000)
                command.start(*(["--restore=latest"] if number > 1 else []))
                running = time.monotonic() - began
                command.wait_until_read(_PARTITIONS, 60)
                command.interrupt()
            print(
                f"start {number}: runs after {running:.1f} s, ended after"
                f" {time.monotonic() - began:.1f} s",
                flush=True,
            )
        with (place / "driver.log").open("a") as log, redirect_stdout(log):
            assert command.stop() == 0, command.log[-3000:]
            assert_each_payment_once(command.file, sender.sent)
    finally:
        command.kill()
    return 0
