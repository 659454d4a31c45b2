"""A job of Spark Structured Streaming that this pipeline takes over from, run by Spark's Python.

python spark_old_job.py SERVERS TOPIC RECORDS DIES_IN FOLDER JAR...: deduplicates what the topic
holds, RECORDS in each micro-batch, into FOLDER/table as Parquet files, with its checkpoint in
FOLDER/checkpoint. The batch DIES_IN writes its rows, and dies before Spark commits it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession  # type: ignore[import-not-found]
from pyspark.sql.functions import col, from_json  # type: ignore[import-not-found]

SCHEMA = "transaction_id STRING, event_time TIMESTAMP, amount DECIMAL(38, 9), currency STRING"


def main(
    servers: str, topic: str, records: int, dies_in: int, folder: Path, jars: list[str]
) -> None:
    """Never returns: the batch that is to die ends the process."""
    settings = {
        "spark.jars": ",".join(jars),
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.memory": "512m",
        "spark.ui.enabled": "false",
        "spark.local.dir": str(folder / "local"),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
    }
    builder = SparkSession.builder.master("local[1]").appName("old payments")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()

    def write(batch: DataFrame, number: int) -> None:
        batch.coalesce(1).write.mode("append").parquet(str(folder / "table"))
        if number == dies_in:
            os._exit(9)

    source = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", servers)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", records)
        .load()
    )
    query = (
        source.select(from_json(col("value").cast("string"), SCHEMA).alias("payment"))
        .select("payment.*")
        .withWatermark("event_time", "1 hour")
        .dropDuplicatesWithinWatermark(["transaction_id"])
        .writeStream.foreachBatch(write)
        .option("checkpointLocation", str(folder / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()


if __name__ == "__main__":
    servers, topic, records, dies_in, folder, *jars = sys.argv[1:]
    main(servers, topic, int(records), int(dies_in), Path(folder), jars)
