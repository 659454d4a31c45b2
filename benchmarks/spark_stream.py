"""Spark Structured Streaming on the same topic: how fast it drops the copies of payments.

python -m benchmarks.spark_stream [messages]: a real Kafka broker on this machine, and Spark alone.
benchmarks/flink_stream.py runs it beside a job on Flink.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.direct_run import send
from benchmarks.spark_environment import SparkEnvironment, spark_environment
from tests.support.child_process import ending_with_this_process
from tests.support.kafka_broker import KafkaBroker, running_broker

_PROGRAM = Path(__file__).with_name("spark_program.py")
_BATCHES = 8
"""Each has fixed costs: the fewer and larger they are, the less these weigh."""

_SECONDS = 1_200


@dataclass(frozen=True)
class SparkDrain:
    """What Spark did with a topic.

    rate: messages a second from the end of the first micro-batch to the end of the last one, so
    without Spark's start. batches: micro-batches. accepted: rows that were no copy.
    """

    rate: float
    batches: int
    accepted: int


def drain_with_spark(
    environment: SparkEnvironment, broker: KafkaBroker, topic: str, messages: int, folder: Path
) -> SparkDrain:
    """Runs benchmarks/spark_program.py on a topic with so many messages. folder: is made.

    Raises RuntimeError with the end of Spark's log when it fails.
    """
    folder.mkdir()
    output, log = folder / "batches.json", folder / "spark.log"
    jars = map(str, environment.jars)
    where = [broker.bootstrap_servers, topic, messages // _BATCHES, folder, output]
    command = [environment.python, _PROGRAM, *where, *jars]
    with log.open("wb") as shown:
        # Java ends when its standard input does, also where Python is killed.
        process = subprocess.Popen(
            ending_with_this_process(list(map(str, command))),
            stdin=subprocess.DEVNULL,
            stdout=shown,
            stderr=shown,
            start_new_session=True,
            env=_environment(),
        )
    try:
        status = process.wait(_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
    if status:
        raise RuntimeError(f"Spark ended with status {status}:\n{log.read_text()[-3000:]}")
    return drain_of(json.loads(output.read_text()))


def _environment() -> dict[str, str]:
    """Nothing of another Spark, nor of the project's Python."""
    foreign = ("SPARK_", "PYSPARK_", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, "SPARK_LOCAL_IP": "127.0.0.1"}


def drain_of(batches: list[dict[str, Any]]) -> SparkDrain:
    """batches: as StreamingQueryProgress has them."""
    full = [batch for batch in batches if batch["numInputRows"]]
    if len(full) < 2:
        raise RuntimeError(
            f"Spark read the topic in {len(full)} micro-batch(es), so there is no rate without its"
            " start. Send more messages."
        )
    seconds = _end_of(full[-1]) - _end_of(full[0])
    rows = sum(batch["numInputRows"] for batch in full[1:])
    accepted = sum(batch["stateOperators"][0]["numRowsUpdated"] for batch in full)
    return SparkDrain(rows / seconds, len(full), accepted)


def _end_of(batch: dict[str, Any]) -> float:
    """Seconds since 1970."""
    begun = datetime.fromisoformat(batch["timestamp"]).timestamp()
    return begun + float(batch["durationMs"]["triggerExecution"]) / 1000


def main(messages: int) -> None:
    """Sends the messages, and prints what Spark did with them."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    environment = spark_environment()
    with tempfile.TemporaryDirectory() as folder, running_broker(Path(folder) / "broker") as broker:
        send(broker, "payments", messages)
        print(drain_with_spark(environment, broker, "payments", messages, Path(folder, "spark")))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000_000)
