"""A job of real PySpark is stopped half way, and this pipeline goes on from its checkpoint."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer

from benchmarks.spark_environment import SparkEnvironment, spark_environment
from pipeline.options.config import OFFSETS, Start
from pipeline.options.consumer_config import load_consumer_config
from pipeline.run.spark_checkpoint import OldJob, read_checkpoint
from runners.java import Unavailable
from tests.support.child_process import ending_with_this_process
from tests.support.in_memory_kafka import HOUR_US, MINUTE_US, NOW_US, config, payment, run, table
from tests.support.kafka_broker import KafkaBroker
from tests.support.whole_runs import COPIES, IDS, failures, ids
from transforms.destinations.contract.seed import SeedTable

pytestmark = pytest.mark.cluster

PARTITIONS = 2
BATCH = 20
DIES_IN = 2
PROGRAM = Path(__file__).parents[1] / "support" / "spark_old_job.py"
SEED = SeedTable(table="old_payments", key_column="transaction_id", event_time_column="event_time")


@pytest.fixture(scope="module")
def environment() -> SparkEnvironment:
    """Spark, from its registries or the cache. Without Java or Maven the test is skipped, or fails
    where CI is set.
    """
    try:
        return spark_environment()
    except Unavailable as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))


def send(broker: KafkaBroker, topic: str, sent: list[tuple[str, int]]) -> None:
    """In turns to the partitions, in this order."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for number, (transaction_id, event_time_us) in enumerate(sent):
        value = payment(transaction_id, event_time_us)
        producer.produce(topic, value, partition=number % PARTITIONS)
    assert producer.flush(60) == 0


def stopped_job(
    environment: SparkEnvironment, broker: KafkaBroker, topic: str, folder: Path
) -> None:
    """Spark has committed the batches before DIES_IN, and has written that one's rows."""
    folder.mkdir()
    numbers = [str(BATCH), str(DIES_IN)]
    program = [str(environment.python), str(PROGRAM)]
    place = [broker.bootstrap_servers, topic, *numbers, str(folder)]
    done = subprocess.run(
        ending_with_this_process([*program, *place, *map(str, environment.jars)]),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},
    )
    assert done.returncode == 9, done.stderr[-3000:]
    assert {path.name for path in (folder / "checkpoint" / "offsets").glob("[0-9]*")} == set("012")
    assert {path.name for path in (folder / "checkpoint" / "commits").glob("[0-9]*")} == set("01")


def test_the_first_run_begins_where_the_job_stopped_and_each_payment_is_there_once(
    environment: SparkEnvironment,
    kafka_broker: KafkaBroker,
    fresh_topic: Callable[..., str],
    path: Path,
    tmp_path: Path,
) -> None:
    topic, folder = fresh_topic(partitions=PARTITIONS), tmp_path / "spark"
    # 54 ids in three batches of 20 messages; six of them come twice.
    numbers = [*range(18), 3, 4, *range(18, 36), 5, 20, *range(36, 54), 6, 40]
    before = [(f"id-{number}", NOW_US - (60 - number) * MINUTE_US) for number in numbers]
    send(kafka_broker, topic, before)
    stopped_job(environment, kafka_broker, topic, folder)

    # Copies across the border, payments that are new, and one that the old job would drop as late.
    reached = NOW_US - (60 - 35) * MINUTE_US - HOUR_US
    after = [before[number] for number in (0, 25, 39, 45)]
    after += [("new-1", NOW_US), ("new-2", NOW_US), ("new-1", NOW_US), ("late", reached - 1)]
    send(kafka_broker, topic, after)
    table(path, f"CREATE TABLE old_payments AS FROM read_parquet('{folder}/table/*.parquet')")
    paid = ids(path, "SELECT transaction_id FROM old_payments")
    assert sorted(paid) == sorted({key for key, _ in before})

    found = read_checkpoint(str(folder / "checkpoint"))
    assert found == OldJob(1, {topic: {0: BATCH, 1: BATCH}}, reached)
    consumer = load_consumer_config(None, kafka_broker.bootstrap_servers, None)
    settings = config(
        path,
        topics=(topic,),
        consumer_config=consumer,
        start=Start(OFFSETS, given=str(folder / "checkpoint")),
        seed=SEED,
    )
    (record,) = run(settings)
    assert {part.partition: part.from_offset for part in record.partitions} == {0: BATCH, 1: BATCH}
    assert table(path, "SELECT transaction_id, reason FROM rejected_records") == [("late", "late")]
    assert ids(path) == ["new-1", "new-2"]
    # What the job had written, and not committed, is read again: copies, like those that came.
    again = sorted([key for key, _ in before[2 * BATCH :]] + [key for key, _ in after[:4]])
    assert ids(path, COPIES) == sorted([*again, "new-1"])
    assert failures(path) == []

    # What only the first run has known would be paid in the second.
    send(kafka_broker, topic, [before[1], before[30], ("new-2", NOW_US), ("new-3", NOW_US)])
    run(settings)
    assert ids(path) == ["new-1", "new-2", "new-3"]
    both = f"SELECT transaction_id FROM old_payments UNION ALL ({IDS})"
    assert sorted(ids(path, both)) == sorted({*paid, "new-1", "new-2", "new-3"})
    assert failures(path) == []
