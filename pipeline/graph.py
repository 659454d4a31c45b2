"""The graphs of a bounded run and of streaming, on one page.

Step labels are part of the state's format: tests/unit/test_frozen_formats.py freezes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import apache_beam as beam
from apache_beam import typehints

from transforms.decode.decode_records import DecodeRecords, PartitionRules
from transforms.decode.decoder import Decoder
from transforms.decode.lateness import TimeLimits
from transforms.deduplicate.deduplicate_transactions import DeduplicateTransactions
from transforms.deduplicate.settings import DedupSettings
from transforms.destinations.contract.destination import Destination
from transforms.model.coordinates import TopicPartition
from transforms.model.elements import GapAnswer
from transforms.read.partition_reader import PartitionRange
from transforms.read.read_records import ReadRecords
from transforms.write.collect_reports import CollectReports
from transforms.write.write_rows import WriteRows

if TYPE_CHECKING:
    from transforms.decode.judge_arrivals import JudgeArrivals
    from transforms.read.new_partitions import NewPartitions
    from transforms.read.partition_loop import ReadSettings
    from transforms.read.position import PartitionPosition
    from transforms.stream.bundle import StreamSettings
    from transforms.stream.stop_on_error import StopOnError


@dataclass(frozen=True)
class BoundedRun:
    """The settings of every step. rules: one for each partition in `ranges`. spread: whether the
    ranges are shuffled, so that each can be read by another worker.
    """

    run_id: str
    ranges: Sequence[PartitionRange]
    consumer_config: dict[str, str]
    decoder: Decoder
    rules: Mapping[TopicPartition, PartitionRules]
    limits: TimeLimits
    dedup: DedupSettings
    layout: str
    destination: Destination
    spread: bool = False


def build(pipeline: beam.Pipeline, run: BoundedRun) -> None:
    """Adds the steps of the run to the pipeline.

    Read from Kafka, decode and split by shard, deduplicate, write; then collect the reports of the
    readers and the writers in one place.
    """
    blocks, read = (
        pipeline
        | "Plan" >> beam.Create(run.ranges, reshuffle=run.spread)
        | "ReadRecords" >> ReadRecords(run.consumer_config)
    )
    written = (
        blocks
        | "DecodeRecords"
        >> beam.ParDo(DecodeRecords(run.decoder, run.rules, run.limits, run.dedup.shards))
        | "DeduplicateTransactions" >> DeduplicateTransactions(run.layout, run.dedup)
        | "WriteRows" >> beam.ParDo(WriteRows(run.destination)).with_output_types(bytes)
    )
    _ = (read, written) | "CollectReports" >> CollectReports(run.run_id, run.destination)


@dataclass(frozen=True)
class StreamingJob:
    """The settings of every step. begins: of every partition that is known when the job begins."""

    begins: Sequence[PartitionPosition]
    new: NewPartitions
    read: ReadSettings
    judge: JudgeArrivals
    stream: StreamSettings
    stop: StopOnError
    destination: Destination


def build_streaming(pipeline: beam.Pipeline, job: StreamingJob) -> None:
    """Adds the steps of streaming to the pipeline.

    Feed, DiscoverPartitions and ReadLoop never end; each partition is read by a timer of its own.
    Dedup and write are one step per shard; totals and gaps of all shards come together behind it.
    """
    # A bounded run does not load them.
    from transforms.read.feed import DiscoverPartitions, Feed
    from transforms.read.read_loop import ReadLoop
    from transforms.stream.deduplicate_and_write import GAPS, TOTALS, DeduplicateAndWrite
    from transforms.stream.write_gaps import WriteGaps
    from transforms.stream.write_totals import WriteTotals

    # No event time is accepted that is further ahead of the clock.
    behind_us = job.read.dedup_horizon_us - job.read.max_future_skew_us
    shards, ledger_job, polling = job.stream.state.shards, job.stream.job, job.stream.polling
    arrivals = (
        pipeline
        | "Once" >> beam.Create([0], reshuffle=False)
        | "Feed" >> beam.ParDo(Feed())
        | "DiscoverPartitions"
        >> beam.ParDo(DiscoverPartitions(job.begins, job.new, job.stop, behind_us))
        | "ReadLoop" >> beam.ParDo(ReadLoop(job.read, job.judge, job.stop))
    )
    written = arrivals | "DeduplicateAndWrite" >> beam.ParDo(
        DeduplicateAndWrite(job.destination, job.stream, job.stop)
    ).with_outputs(TOTALS, GAPS)
    written[TOTALS].element_type = typehints.Tuple[int, bytes]
    written[GAPS].element_type = typehints.Tuple[int, GapAnswer]
    _ = written[TOTALS] | "WriteTotals" >> beam.ParDo(
        WriteTotals(job.destination, ledger_job, polling, job.stop)
    )
    _ = written[GAPS] | "WriteGaps" >> beam.ParDo(
        WriteGaps(job.destination, ledger_job, shards, polling, job.stop)
    )
