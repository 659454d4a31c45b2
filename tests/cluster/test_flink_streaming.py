"""Streaming on a real broker and a real Flink cluster, whatever is killed."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runners.flink.cluster import FlinkCluster
from tests.support.kafka_broker import KafkaBroker
from tests.support.streaming_command import Sender, StreamingCommand, assert_each_payment_once

PARTITIONS = 3


@pytest.fixture
def topic(fresh_topic: Callable[..., str]) -> str:
    return fresh_topic(partitions=PARTITIONS)


@pytest.fixture
def command(
    flink_cluster: FlinkCluster, kafka_broker: KafkaBroker, topic: str, tmp_path: Path
) -> Iterator[StreamingCommand]:
    running = StreamingCommand(flink_cluster, kafka_broker.bootstrap_servers, topic, tmp_path)
    yield running
    running.kill()


@pytest.fixture
def sender(kafka_broker: KafkaBroker, topic: str) -> Sender:
    return Sender(kafka_broker.bootstrap_servers, topic, PARTITIONS, seed=1)


def now_us() -> int:
    return time.time_ns() // 1000


def test_from_bounded_runs_to_a_job_and_back(command: StreamingCommand, sender: Sender) -> None:
    sender.send(300, now_us())
    assert command.bounded_run() == 0
    sender.send(300, now_us())
    command.start()
    sender.send(300, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    # The savepoint of the interrupt is the newest.
    command.start("--restore=latest")
    sender.send(300, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.bounded_run() == 3, "the job owns the tables"
    assert command.stop() == 0
    assert_each_payment_once(command.file, sender.sent)
    sender.send(300, now_us())
    assert command.bounded_run() == 0
    assert_each_payment_once(command.file, sender.sent)


def test_a_job_survives_the_end_of_everything(command: StreamingCommand, sender: Sender) -> None:
    command.start()
    sender.send(500, now_us())
    command.wait_for_checkpoints(1)
    sender.send(500, now_us())
    command.cluster.kill_task_manager()
    sender.send(500, now_us())
    command.cluster.start_task_manager()
    command.wait_until_read(PARTITIONS)
    sender.send(500, now_us())
    command.kill()
    command.cluster.kill_everything()
    command.cluster.start(command.cluster.settings)
    command.start("--restore=latest")
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert "the job begins again from its last checkpoint: JobMasterException" in command.log
    assert "Traceback" not in command.log, "the ends of connections are no news"
    assert command.stop("--lost") == 0
    assert_each_payment_once(command.file, sender.sent)


def test_without_any_checkpoint_a_job_goes_on_from_the_tables(
    command: StreamingCommand, sender: Sender
) -> None:
    command.start()
    sender.send(500, now_us())
    command.wait_for_checkpoints(1)
    sender.send(500, now_us())
    command.kill()
    command.start("--from_tables")
    sender.send(500, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.stop("--lost") == 0
    assert_each_payment_once(command.file, sender.sent)


def test_a_task_manager_that_was_taken_for_dead_adds_nothing(
    command: StreamingCommand, sender: Sender
) -> None:
    command.start()
    sender.send(500, now_us())
    command.wait_for_checkpoints(1)
    command.cluster.signal_task_manager(signal.SIGSTOP)
    sender.send(500, now_us())
    command.cluster.start_task_manager()
    command.wait_until_read(PARTITIONS)
    command.cluster.signal_task_manager(signal.SIGCONT)
    sender.send(500, now_us())
    command.wait_until_read(PARTITIONS)
    command.interrupt()
    assert command.stop("--lost") == 0
    assert_each_payment_once(command.file, sender.sent)
