"""What a checkpoint of a streaming job knows of its graph: changing any of it needs a migration.

A runner finds the state of a step by its label, and a cell or timer by its name.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from apache_beam import DoFn, Pipeline
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.userstate import get_dofn_specs

from pipeline.graph import StreamingJob, build_streaming
from pipeline.streaming.begin import Begun, StartPartition
from pipeline.streaming.build import streaming_job
from tests.support.in_memory_kafka import config
from transforms.deduplicate.shard_state import SLOTS
from transforms.destinations.contract.shard_ledger import Job
from transforms.destinations.open import open_destination
from transforms.read.feed import DiscoverPartitions
from transforms.read.read_loop import ReadLoop
from transforms.stream.deduplicate_and_write import DeduplicateAndWrite
from transforms.stream.write_gaps import WriteGaps
from transforms.stream.write_totals import WriteTotals

STEPS = {
    "Once", "Feed", "DiscoverPartitions", "ReadLoop", "DeduplicateAndWrite", "WriteTotals",
    "WriteGaps",
}  # fmt: skip

RING = {f"ids_{slot:02}" for slot in range(SLOTS)}


@pytest.fixture
def job(tmp_path: Path) -> StreamingJob:
    settings = config(tmp_path / "never-opened.duckdb")
    partitions = (StartPartition("payments", 0, "id", 17, 1_790_000_000_123_456),)
    begun = Begun(Job("job", 1), 4, "cluster", partitions, 1_790_000_000_000_000)
    return streaming_job(settings, open_destination(settings.destination), begun, "flink:8081")


def test_step_labels(job: StreamingJob) -> None:
    pipeline = Pipeline(options=PipelineOptions(["--runner=FnApiRunner"]))
    build_streaming(pipeline, job)
    transforms = pipeline.to_runner_api().components.transforms.values()
    top = {each.unique_name for each in transforms if "/" not in each.unique_name}
    assert {name for name in top if name and "AppliedPTransform" not in name} == STEPS


@pytest.mark.parametrize(
    ("step", "cells", "timers"),
    [
        (DiscoverPartitions, {"known"}, {"ask"}),
        (ReadLoop, {"at"}, {"poll"}),
        (DeduplicateAndWrite, {"head", *RING}, {"expiry"}),
        (WriteTotals, {"head"}, {"close"}),
        (WriteGaps, {"head"}, set()),
    ],
)
def test_state_cells_and_timers(step: type[DoFn], cells: set[str], timers: set[str]) -> None:
    state, its_timers = get_dofn_specs(step.__new__(step))
    assert {spec.name for spec in state} == cells
    # "ts-" is Beam's prefix of a timer family.
    assert {spec.name for spec in its_timers} == {f"ts-{name}" for name in timers}


def test_a_job_begins_where_the_ledger_says_at_whole_milliseconds(job: StreamingJob) -> None:
    (begin,) = job.begins
    assert (begin.topic, begin.partition, begin.offset) == ("payments", 0, 17)
    # Watermarks travel in milliseconds, and none may be ahead of its own.
    assert begin.watermark_us == 1_790_000_000_123_000
    assert (begin.topic_id, begin.cluster_id, begin.is_new) == ("id", "cluster", False)
