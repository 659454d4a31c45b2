"""The configuration of a run, as one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runners.direct import DIRECT
from runners.profile import RunnerProfile
from transforms.destinations.contract.seed import SeedTable
from transforms.model.coordinates import TopicPartition
from transforms.model.schema import PaymentSchema

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions


EARLIEST = "earliest"
LATEST = "latest"
TIMESTAMP = "timestamp"
OFFSETS = "offsets"
NEVER = "never"

NO_TRANSACTIONS = 1 << 62
"""Records per run of a streaming job, which is not cut into transactions."""


@dataclass(frozen=True)
class Start:
    """Where the first run begins.

    kind: earliest, latest, timestamp or offsets. timestamp_ms: Kafka's record timestamp,
    milliseconds since 1970. given: the value of --start, or of --start_offsets where that is the
    kind; None where both were left out.
    """

    kind: str
    timestamp_ms: int = 0
    given: str | None = field(default=None, compare=False)

    @property
    def flag(self) -> str:
        """The flag that says so, without its dashes."""
        return "start_offsets" if self.kind == OFFSETS else "start"


@dataclass(frozen=True)
class StreamingConfig:
    """What only a streaming job has.

    topic_pattern: topics whose whole name matches are read too. restore: path of a checkpoint, or
    LATEST; None: none. from_tables: without a checkpoint, also where another job owns the tables.
    flink_master: HOST:PORT of Flink's REST interface. in_this_process: this process is the worker.
    parallelism: subtasks of each step. shards_given: whether --shards was. metrics_port: of
    127.0.0.1, for Prometheus; None: none.
    """

    topic_pattern: str | None
    restore: str | None
    from_tables: bool
    detach: bool
    flink_master: str
    in_this_process: bool
    parallelism: int
    shards_given: bool
    metrics_port: int | None = None


@dataclass(frozen=True)
class AdoptTopic:
    """A topic that goes on as another one of the same name.

    topic: its name in Kafka. topic_id: Kafka's id of the new one. generation: what the new one must
    become, None: not said.
    """

    topic: str
    topic_id: str
    generation: int | None = None

    def __str__(self) -> str:
        """As the flag says it."""
        number = "" if self.generation is None else f"#{self.generation}"
        return f"--adopt_topic={self.topic}{number}@{self.topic_id}"


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run, checked. Durations in microseconds.

    idle_timeout_us: None means never. destination_options: the further arguments of
    open_destination. reject_records: offsets per (topic, partition). consumer_config: prints
    without its secrets. streaming: None for a bounded run. every_us: between the beginnings of two
    runs; None for a single one. state_dir: folder for the ids between processes; None: none.
    shards_given: else a small run has fewer. runner: its profile. workers_here: whether all
    Python code of the run is in this process. seed: a table of ids that were paid before the first
    run; None: none is named.
    """

    bootstrap_servers: str
    topics: tuple[str, ...]
    adopt_topics: tuple[AdoptTopic, ...]
    destination: str
    destination_options: Mapping[str, Any]
    schema: PaymentSchema
    dedup_horizon_us: int
    extra_retention_us: int
    max_future_skew_us: int
    idle_timeout_us: int | None
    dedup_layout: str
    shards: int
    start: Start
    max_records_per_run: int
    max_record_bytes: int
    unknown_fields: str
    on_data_loss: str
    max_rejected_rate: float
    reject_records: Mapping[TopicPartition, tuple[int, ...]]
    consumer_config: Mapping[str, str]
    json: bool
    log_format: str
    beam_options: PipelineOptions = field(repr=False)
    streaming: StreamingConfig | None = None
    every_us: int | None = None
    state_dir: str | None = None
    shards_given: bool = True
    runner: RunnerProfile = field(default=DIRECT, repr=False)
    workers_here: bool = True
    seed: SeedTable | None = None
