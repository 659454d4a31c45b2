"""`run --every` on a real Spark: one client, one job server, which dies on the way."""

from __future__ import annotations

import signal

import pytest

from runners.spark.cluster import SparkServers
from tests.support.payment_sender import now_us
from tests.support.spark_stage import Stage, Start

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(700)]


def test_run_after_run_while_payments_flow_and_the_job_server_dies(
    spark: SparkServers, file_stage: Stage, spark_run: Start
) -> None:
    client = spark_run(file_stage, spark)

    def runs_are_committed(number: int) -> None:
        wanted = client.log.count("is committed") + number
        client.wait_for("runs", lambda: client.log.count("is committed") >= wanted)

    file_stage.send(500)
    with file_stage.sender.steadily(50, now_us):
        child = client.start("--every=1s")
        runs_are_committed(2)
        spark.kill_job_server()
        client.wait_for("it is missed", lambda: "does not answer" in client.log)
        spark.start_job_server()
        runs_are_committed(2)
        child.send_signal(signal.SIGTERM)
        assert client.ended(child) == 143
    assert "what was committed is whole" in client.log
    assert client.run() == 0
    file_stage.assert_exact()
