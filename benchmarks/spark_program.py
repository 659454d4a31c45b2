"""The job that is measured with Spark, run by the Python of benchmarks/spark_environment.py.

python spark_program.py SERVERS TOPIC RECORDS FOLDER OUTPUT JAR...: reads all that the topic holds,
RECORDS in each micro-batch, and writes what Spark says of them to OUTPUT, as JSON.

It has what payments need from Spark: the values parsed as JSON, a watermark on event time, copies
dropped by transaction_id within it, state in RocksDB with a change log, and a checkpoint folder.
Accepted rows are produced and thrown away ("noop"): no sink makes it slower.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pyspark.sql import SparkSession  # type: ignore[import-not-found]
from pyspark.sql.functions import col, from_json  # type: ignore[import-not-found]

SCHEMA = (
    "transaction_id STRING, event_time TIMESTAMP, amount DECIMAL(38, 9), currency STRING,"
    " payer_id STRING, payee_id STRING, status STRING, payment_method STRING"
)
CORES = 2
HEAP = "4g"


def session(folder: Path, jars: list[str]) -> SparkSession:
    """Spark in this machine's memory, on 127.0.0.1."""
    settings = {
        "spark.jars": ",".join(jars),
        "spark.driver.memory": HEAP,
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        # 200 by default: a task of each for every micro-batch.
        "spark.sql.shuffle.partitions": str(CORES),
        "spark.sql.streaming.stateStore.providerClass": (
            "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
        ),
        "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled": "true",
        "spark.sql.streaming.numRecentProgressUpdates": "10000",
    }
    builder = SparkSession.builder.master(f"local[{CORES}]").appName("payments")
    for key, value in settings.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def main(
    servers: str, topic: str, batch_records: int, folder: Path, output: Path, jars: list[str]
) -> None:
    """Runs until all is read that was there at the start."""
    spark = session(folder, jars)
    spark.sparkContext.setLogLevel("WARN")
    records = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", servers)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", batch_records)
        .load()
    )
    payments = (
        records.select(
            from_json(col("value").cast("string"), SCHEMA).alias("payment"),
            col("topic").alias("kafka_topic"),
            col("partition").alias("kafka_partition"),
            col("offset").alias("kafka_offset"),
            col("timestamp").alias("kafka_timestamp"),
        )
        .select("payment.*", "kafka_topic", "kafka_partition", "kafka_offset", "kafka_timestamp")
        .where("transaction_id IS NOT NULL AND event_time IS NOT NULL AND amount IS NOT NULL")
    )
    query = (
        payments.withWatermark("event_time", "1 hour")
        .dropDuplicatesWithinWatermark(["transaction_id"])
        .writeStream.format("noop")
        .outputMode("append")
        .option("checkpointLocation", str(folder / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    output.write_text(json.dumps(list(query.recentProgress)))
    spark.stop()


if __name__ == "__main__":
    servers, topic, batch_records, folder, output, *jars = sys.argv[1:]
    main(servers, topic, int(batch_records), Path(folder), Path(output), jars)
