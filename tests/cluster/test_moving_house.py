"""One topic and its tables move from runner to runner, while payments flow."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from runners.spark.cluster import SparkServers
from tests.support.kafka_broker import KafkaBroker
from tests.support.payment_sender import Sender, now_us
from tests.support.spark_command import SparkCommand
from tests.support.stored_payments import assert_each_payment_once, assert_no_check_fails
from tests.support.streaming_command import StreamingCommand

pytestmark = pytest.mark.timeout(500)


def test_direct_flink_spark_flink_direct(
    command: StreamingCommand,
    spark: SparkServers,
    kafka_broker: KafkaBroker,
    topic: str,
    sender: Sender,
    tmp_path: Path,
) -> None:
    destination = f"--destination=duckdb:{command.file}"
    on_spark = SparkCommand(
        spark, kafka_broker.bootstrap_servers, topic, [destination], tmp_path / "spark"
    )
    with sender.steadily(20, now_us):
        assert command.bounded_run() == 0
        assert_no_check_fails(command.file)
        _stream(command)
        # Bounded runs have no business here while the job owns the tables.
        command.kill()
        assert command.bounded_run() == 3
        assert "owns the tables of this destination" in command.log
        assert command.stop() == 0
        assert_no_check_fails(command.file)
        _run_again_and_again(on_spark)
        assert_no_check_fails(command.file)
        _stream(command)
        command.kill()
        assert on_spark.run() == 3
        assert command.stop("--lost") == 0
        assert_no_check_fails(command.file)
        assert on_spark.run() == 0
    assert command.bounded_run() == 0
    assert_each_payment_once(command.file, sender.sent)


def _stream(command: StreamingCommand) -> None:
    command.start()
    command.wait_for("it accepts", lambda: command.figures().of("accepted") > 0)
    command.wait_for_checkpoints(2)


def _run_again_and_again(on_spark: SparkCommand) -> None:
    child = on_spark.start("--every=1s")
    on_spark.wait_for("runs on Spark", lambda: on_spark.log.count("is committed") >= 3)
    child.send_signal(signal.SIGTERM)
    assert on_spark.ended(child) == 143
