"""Kafka as lists, for tests of whole runs in this process. What the broker really does is shown in
tests/cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from confluent_kafka import TIMESTAMP_CREATE_TIME

from pipeline.kafka_admin import TopicState
from pipeline.options.config import EARLIEST, LATEST, RunConfig, Start
from pipeline.options.schema_file import load_schema
from pipeline.run import command as run_module
from pipeline.run import kept as kept_module
from pipeline.run.command import run_until_caught_up
from pipeline.run.ids_between_runs import IdsBetweenRuns
from pipeline.run.kept import KeptBetweenRuns
from pipeline.run.notes import Notes
from pipeline.run.outcome import Outcome
from transforms.destinations.contract.run_ledger import RunRecord
from transforms.destinations.open import open_destination
from transforms.model.coordinates import TopicPartition
from transforms.model.elements import RawBlock
from transforms.model.errors import GuaranteeError
from transforms.model.topic_generations import kafka_topic
from transforms.read import read_records as read_module
from transforms.read.partition_reader import PartitionRange
from transforms.read.topic_identity import require_cluster

NOW_US = 1_790_000_000_000_000
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US

MARKER = object()
"""An offset that holds no record."""


@dataclass
class Partition:
    """records: value, or MARKER, by offset; timestamps: in milliseconds, with their types;
    deleted: the first offset still there.
    """

    records: list[Any] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    timestamp_types: list[int] = field(default_factory=list)
    deleted: int = 0


@dataclass
class Topic:
    topic_id: str | None
    partitions: list[Partition]


class InMemoryKafka:
    """Stands in for KafkaAdmin and PartitionReader of one process."""

    def __init__(self) -> None:
        self.cluster = "cluster-1"
        self.group_denied: str | None = None
        self.group_unknown = False
        self.topics: dict[str, Topic] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.bytes_read = 0

    def create(self, topic: str, partitions: int, topic_id: str | None = None) -> None:
        self.topics[topic] = Topic(
            topic_id or f"id of {topic}", [Partition() for _ in range(partitions)]
        )

    def send(
        self,
        topic: str,
        partition: int,
        *values: Any,
        timestamp_us: int = NOW_US,
        timestamp_type: int = TIMESTAMP_CREATE_TIME,
    ) -> None:
        log = self.topics[topic].partitions[partition]
        log.records += values
        log.timestamps += [timestamp_us // 1000] * len(values)
        log.timestamp_types += [timestamp_type] * len(values)

    # KafkaAdmin

    def __call__(self, _consumer_config: Mapping[str, str]) -> InMemoryKafka:
        return self

    def __enter__(self) -> InMemoryKafka:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def cluster_id(self) -> str:
        return self.cluster

    def topic_id(self, topic: str) -> str | None:
        return self.topic_state(topic, 0).topic_id

    def topic_state(self, topic: str, now_us: int) -> TopicState:
        name = kafka_topic(topic)
        if name not in self.topics:
            raise GuaranteeError(f"--topic={name}: unknown")
        found = self.topics[name]
        offsets = {
            number: (log.deleted, len(log.records)) for number, log in enumerate(found.partitions)
        }
        return TopicState(topic, found.topic_id, offsets, now_us)

    def offsets_for_start(self, state: TopicState, start: Start) -> dict[int, int]:
        index = {EARLIEST: 0, LATEST: 1}[start.kind]
        return {partition: bounds[index] for partition, bounds in state.partitions.items()}

    def group_problem(self, group: str) -> str | None:
        if self.group_unknown:
            raise GuaranteeError(f"consumer group {group} cannot be looked up")
        return self.group_denied

    def commit_offsets(self, positions: Mapping[TopicPartition, int]) -> None:
        self.committed.update(positions)

    # PartitionReader

    def read(self, wanted: PartitionRange, batch_records: int = 100) -> Iterator[RawBlock]:
        log = self.topics[wanted.in_kafka().topic].partitions[wanted.partition]
        there = [
            offset
            for offset in range(max(wanted.from_offset, log.deleted), wanted.to_offset)
            if log.records[offset] is not MARKER
        ]
        for first in range(0, len(there), batch_records):
            offsets = there[first : first + batch_records]
            times = [log.timestamps[offset] for offset in offsets]
            self.bytes_read += sum(len(log.records[offset] or b"") for offset in offsets)
            yield RawBlock(
                wanted.topic,
                wanted.partition,
                offsets,
                times,
                [log.records[offset] for offset in offsets],
                bytearray(log.timestamp_types[offset] for offset in offsets),
            )
        if wanted.cluster_id is not None:
            require_cluster(wanted.cluster_id, self.cluster)

    can_read_again = True

    def is_ready_for(self, _wanted: PartitionRange) -> bool:
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> InMemoryKafka:
    double = InMemoryKafka()
    use(double, monkeypatch)
    return double


@pytest.fixture
def one_topic(kafka: InMemoryKafka) -> InMemoryKafka:
    """The broker of the test, with `payments` of one partition."""
    kafka.create("payments", 1)
    return kafka


def use(kafka: InMemoryKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (run_module, kept_module):
        monkeypatch.setattr(module, "KafkaAdmin", kafka)
    monkeypatch.setattr(read_module, "PartitionReader", lambda _config: kafka)


def config(path: Path | str, **changes: Any) -> RunConfig:
    """A run's configuration; names as in RunConfig."""
    settings: dict[str, Any] = {
        "bootstrap_servers": "in-memory:1",
        "topics": ("payments",),
        "adopt_topics": (),
        "destination": f"duckdb:{path}",
        "destination_options": {},
        "schema": load_schema(None),
        "dedup_horizon_us": HOUR_US,
        "extra_retention_us": 0,
        "max_future_skew_us": 5 * MINUTE_US,
        "idle_timeout_us": MINUTE_US,
        "dedup_layout": "sharded",
        "shards": 4,
        "start": Start(EARLIEST),
        "max_records_per_run": 1_000_000,
        "max_record_bytes": 1 << 20,
        "unknown_fields": "keep",
        "on_data_loss": "fail",
        "max_rejected_rate": 1.0,
        "reject_records": {},
        "consumer_config": {"bootstrap.servers": "in-memory:1", "group.id": "mine"},
        "json": True,
        "log_format": "text",
        "beam_options": PipelineOptions(["--runner=FnApiRunner"]),
    }
    return RunConfig(**{**settings, **changes})


def run(
    settings: RunConfig,
    now_us: int = NOW_US,
    notes: Notes | None = None,
    ids: IdsBetweenRuns | None = None,
) -> list[RunRecord]:
    """What `run` does between opening and closing the destination."""
    with open_destination(settings.destination, **settings.destination_options) as destination:
        outcome = Outcome(notes=notes or Notes())
        kept = KeptBetweenRuns(settings)
        kept.ids = ids or kept.ids
        return list(run_until_caught_up(settings, destination, lambda: now_us, outcome, kept))


def payment(
    transaction_id: str, event_time_us: int = NOW_US, amount: str = "1.00", currency: str = "EUR"
) -> bytes:
    seconds, micros = divmod(event_time_us, 1_000_000)
    from datetime import datetime, timezone

    time = (
        datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
        + f".{micros:06d}Z"
    )
    return (
        f'{{"transaction_id":"{transaction_id}","event_time":"{time}",'
        f'"amount":"{amount}","currency":"{currency}"}}'
    ).encode()


def table(path: Path | str, sql: str) -> list[tuple[Any, ...]]:
    import duckdb

    with duckdb.connect(str(path)) as connection:
        return connection.sql(sql).fetchall()
