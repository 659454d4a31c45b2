"""The three tables against the topic that they were read from, coordinate by coordinate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import duckdb
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

from pipeline.demo.destination import DemoDestination
from pipeline.produce.message_generator import COPY, PAYMENT
from transforms.model.tables import DUPLICATES, PAYMENTS, REJECTED

STORED = "stored"
"""Table of all rows, with the columns that `copy_rows` names."""

_AT_ONCE = 20_000
_ANSWER_SECONDS = 30.0

_TOPIC = pa.schema(
    [("kafka_partition", pa.int64()), ("kafka_offset", pa.int64()), ("transaction_id", pa.string())]
)

_MUST_BE_NONE = {
    "messages that are in no table": (
        "SELECT count(*) FROM topic ANTI JOIN stored USING (kafka_partition, kafka_offset)"
    ),
    "rows that stand for no message, or for one with another id": (
        "SELECT count(*) FROM stored ANTI JOIN topic"
        " USING (kafka_partition, kafka_offset, transaction_id)"
    ),
    "messages with more than one row": (
        "SELECT count(*) FROM (SELECT 1 FROM stored GROUP BY kafka_partition, kafka_offset"
        " HAVING count(*) > 1)"
    ),
    "ids that are not paid exactly once": (
        "SELECT count(*) FROM (SELECT DISTINCT transaction_id FROM topic) LEFT JOIN"
        f" (SELECT transaction_id, count(*) AS paid FROM stored WHERE name = '{PAYMENTS}'"
        " GROUP BY ALL) USING (transaction_id) WHERE paid IS DISTINCT FROM 1"
    ),
}


def create_tables(tables: duckdb.DuckDBPyConnection) -> None:
    """Those that the other functions fill and compare."""
    tables.execute(
        "CREATE TABLE topic (kafka_partition BIGINT, kafka_offset BIGINT, transaction_id VARCHAR);"
        f"CREATE TABLE {STORED} (name VARCHAR, kafka_partition BIGINT, kafka_offset BIGINT,"
        " transaction_id VARCHAR, kafka_timestamp TIMESTAMPTZ, ingest_time TIMESTAMPTZ)"
    )


def copy_topic(tables: duckdb.DuckDBPyConnection, servers: str, topic: str) -> None:
    """Coordinate and id of every message, from Kafka and past the pipeline.

    The values are those of message_generator.py, which begin with their id.
    """
    for batch in _messages(servers, topic):
        tables.register("batch", batch)
        tables.execute("INSERT INTO topic SELECT * FROM batch")


def copy_rows(tables: duckdb.DuckDBPyConnection, stored: DemoDestination) -> None:
    """What the comparison and the latency need of every row."""
    for name in (PAYMENTS, DUPLICATES, REJECTED):
        found = stored.columns(
            f"SELECT '{name}' AS name, kafka_partition, kafka_offset, transaction_id,"
            f" kafka_timestamp, ingest_time FROM {{{name}}}"
        )
        tables.register("found", found)
        tables.execute(f"INSERT INTO {STORED} SELECT * FROM found")


def differences(tables: duckdb.DuckDBPyConnection, sent: Mapping[str, int]) -> dict[str, int]:
    """What is not as it was sent; empty where all is right.

    sent: messages by kind, as the sender knows them: payments and copies of them, all on time.
    """
    wanted = {PAYMENTS: sent.get(PAYMENT, 0), DUPLICATES: sent.get(COPY, 0), REJECTED: 0}
    rows = dict(tables.execute(f"SELECT name, count(*) FROM {STORED} GROUP BY name").fetchall())
    found = {
        f"rows too many in {name}, or too few": rows.get(name, 0) - number
        for name, number in wanted.items()
    }
    found["messages in Kafka that nobody sent, or missing ones"] = _number(
        tables, "SELECT count(*) FROM topic"
    ) - sum(sent.values())
    found |= {what: _number(tables, sql) for what, sql in _MUST_BE_NONE.items()}
    return {what: number for what, number in found.items() if number}


def _number(tables: duckdb.DuckDBPyConnection, sql: str) -> int:
    return int(tables.execute(sql).fetchall()[0][0])


def _messages(servers: str, topic: str) -> Iterator[pa.Table]:
    settings = {"bootstrap.servers": servers, "group.id": "oracle", "enable.auto.commit": False}
    consumer = Consumer(settings)
    try:
        found = consumer.list_topics(topic, timeout=_ANSWER_SECONDS).topics[topic].partitions
        places = [TopicPartition(topic, number, 0) for number in found]
        left = sum(consumer.get_watermark_offsets(place, _ANSWER_SECONDS)[1] for place in places)
        consumer.assign(places)
        while left:
            messages = consumer.consume(min(left, _AT_ONCE), _ANSWER_SECONDS)
            if not messages or any(message.error() for message in messages):
                raise RuntimeError(f"{topic}: {left:,} messages cannot be read from Kafka")
            left -= len(messages)
            columns = [
                [message.partition() for message in messages],
                [message.offset() for message in messages],
                [message.value().split(b'"', 4)[3].decode() for message in messages],
            ]
            yield pa.table(columns, schema=_TOPIC)
    finally:
        consumer.close()
