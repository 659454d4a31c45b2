"""A topic that was created again, or has moved, refuses a job, and says how to go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.options.config import AdoptTopic, StreamingConfig
from tests.support.in_memory_kafka import InMemoryKafka
from tests.support.streaming.destination import duckdb_destination
from tests.support.streaming.hand_over import Tables
from tests.support.streaming.log import TOPIC, Sent
from transforms.model.errors import GuaranteeError
from transforms.read.position import PartitionPosition
from transforms.read.topic_identity import TopicIdentity, require_same

STREAMING = StreamingConfig(
    topic_pattern=None,
    restore=None,
    from_tables=True,
    detach=False,
    flink_master="nowhere:1",
    in_this_process=True,
    parallelism=1,
    shards_given=False,
)
GOES_ON = re.escape(
    f"`run --streaming --from_tables --adopt_topic={TOPIC}@new --on_data_loss=accept` goes on"
)


@pytest.fixture
def tables(tmp_path: Path, kafka: InMemoryKafka) -> Iterator[Tables]:
    """Owned by a job that has begun."""
    with duckdb_destination(tmp_path) as opened:
        tables = Tables(opened, kafka, [[Sent("a", 0)], [Sent("b", 0)]])
        tables.begin(streaming=STREAMING)
        yield tables


def test_what_the_refusal_of_a_recreated_topic_prints_is_what_works(tables: Tables) -> None:
    tables.kafka.create(TOPIC, 2, topic_id="new")
    with pytest.raises(GuaranteeError, match=GOES_ON):
        tables.begin(take_over=True, streaming=STREAMING)
    flag = AdoptTopic(TOPIC, "new")
    begun = tables.begin(
        take_over=True, streaming=STREAMING, adopt_topics=(flag,), on_data_loss="accept"
    )
    assert {part.topic for part in begun.partitions} == {f"{TOPIC}#2"}


def test_so_does_the_refusal_of_another_cluster(tables: Tables) -> None:
    tables.kafka.cluster = "cluster-2"
    tables.kafka.create(TOPIC, 2, topic_id="new")
    with pytest.raises(GuaranteeError, match=GOES_ON):
        tables.begin(take_over=True, streaming=STREAMING)


def test_so_does_the_end_of_a_job_that_reads_the_topic() -> None:
    """In the ledger it may have a number; the flag has its name in Kafka."""
    position = PartitionPosition(f"{TOPIC}#2", 0, "old", "cluster", 7, None)
    with pytest.raises(GuaranteeError, match=GOES_ON):
        require_same(position, TopicIdentity("cluster", "new"))


def test_a_topic_without_an_id_cannot_be_adopted() -> None:
    position = PartitionPosition(TOPIC, 0, "old", "cluster", 7, None)
    with pytest.raises(GuaranteeError, match="Use a new topic name, or a new destination"):
        require_same(position, TopicIdentity("cluster", None))
