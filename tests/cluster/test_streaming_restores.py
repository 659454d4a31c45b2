"""Checkpoints and savepoints that a job goes on from: older ones, one for two, none at all."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from runners.flink.configuration import CHECKPOINTS, SAVEPOINTS
from tests.support.kafka_broker import KafkaBroker
from tests.support.payment_sender import PARTITIONS, Sender, now_us
from tests.support.stored_payments import assert_each_payment_once
from tests.support.streaming_command import StreamingCommand


def test_a_job_goes_on_from_what_is_left_of_it(
    command: StreamingCommand,
    sender: Sender,
    topic: str,
    kafka_broker: KafkaBroker,
    tmp_path: Path,
) -> None:
    """Payments flow all the while, so each checkpoint knows less than the tables hold."""
    cluster = command.cluster
    (tmp_path / "other").mkdir()
    other = StreamingCommand(cluster, kafka_broker.bootstrap_servers, topic, tmp_path / "other")
    other.file = command.file
    try:
        with sender.steadily(20, now_us):
            command.start()
            command.wait_for_checkpoints(2)
            savepoint = command.job().take_savepoint()
            command.wait_for_checkpoints(3)
            command.kill()
            first_job = command.job().jid
            command.start(f"--restore={savepoint}")
            command.wait_for_checkpoints(3)
            command.kill()
            oldest = [each for each in cluster.checkpoints if each.parent.name == first_job][-1]
            assert cluster.checkpoints.index(oldest) > 2
            goes_on = start_twice(command, other, f"--restore={oldest}")
            goes_on.wait_for_checkpoints(3)
            goes_on.kill()
            for lost in (CHECKPOINTS, SAVEPOINTS):
                shutil.rmtree(cluster.folder / lost)
                (cluster.folder / lost).mkdir()
            command.run_streaming("--restore=latest")
            assert command.ended() == 3
            command.start("--from_tables")
        command.wait_until_read(PARTITIONS)
        command.interrupt()
        assert command.stop("--lost") == 0
        assert_each_payment_once(command.file, sender.sent)
    finally:
        other.kill()


def start_twice(first: StreamingCommand, second: StreamingCommand, *flags: str) -> StreamingCommand:
    """Starts a job by both commands at once, and returns the one that goes on."""
    before = first.jobs()
    for each in (first, second):
        each.run_streaming(*flags)
    deadline = time.monotonic() + 120
    while first.runs and second.runs:
        assert time.monotonic() < deadline, "both go on"
        time.sleep(0.2)
    refused, goes_on = (first, second) if second.runs else (second, first)
    assert refused.ended() == 5
    goes_on.wait_until_runs(before)
    return goes_on
