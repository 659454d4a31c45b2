"""The graph of a bounded run, on one page.

Step labels are part of the state's format: tests/unit/test_frozen_formats.py freezes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import apache_beam as beam

from transforms.decode.decode_records import DecodeRecords, PartitionRules
from transforms.decode.decoder import Decoder
from transforms.decode.lateness import TimeLimits
from transforms.deduplicate.deduplicate_transactions import DeduplicateTransactions
from transforms.deduplicate.settings import DedupSettings
from transforms.destinations.contract.destination import Destination
from transforms.model.coordinates import TopicPartition
from transforms.read.partition_reader import PartitionRange
from transforms.read.read_records import ReadRecords
from transforms.write.collect_reports import CollectReports
from transforms.write.write_rows import WriteRows


@dataclass(frozen=True)
class BoundedRun:
    """The settings of every step. rules: one for each partition in `ranges`."""

    run_id: str
    ranges: Sequence[PartitionRange]
    consumer_config: dict[str, str]
    decoder: Decoder
    rules: Mapping[TopicPartition, PartitionRules]
    limits: TimeLimits
    dedup: DedupSettings
    layout: str
    destination: Destination


def build(pipeline: beam.Pipeline, run: BoundedRun) -> None:
    """Adds the steps of the run to the pipeline.

    Read from Kafka, decode and split by shard, deduplicate, write; then collect the reports of the
    readers and the writers in one place.
    """
    blocks, read = (
        pipeline
        | "Plan" >> beam.Create(run.ranges, reshuffle=False)
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
