"""The graph of a bounded run, on one page. Step labels are part of the state's format:
tests/unit/test_frozen_formats.py freezes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from transforms.decode.decode_records import DecodeRecords
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
    """Everything that the graph needs to know.

    watermarks: start watermark per (topic, partition) in microseconds. present: offsets that have a
    row already, only in a repair. refused: offsets whose rows the destination refuses, as
    --reject_records names them.
    """

    run_id: str
    ranges: Sequence[PartitionRange]
    watermarks: dict[TopicPartition, int | None]
    consumer_config: dict[str, str]
    decoder: Decoder
    limits: TimeLimits
    dedup: DedupSettings
    layout: str
    destination: Destination
    present: Mapping[TopicPartition, NDArray[np.int64]]
    refused: Mapping[TopicPartition, NDArray[np.int64]]


def build(pipeline: beam.Pipeline, run: BoundedRun) -> None:
    """Kafka -> decode, judge time -> shard -> deduplicate -> write; and the reports of readers and
    writers to one place.
    """
    blocks, read = (
        pipeline
        | "Plan" >> beam.Create(run.ranges, reshuffle=False)
        | "ReadRecords" >> ReadRecords(run.consumer_config)
    )
    written = (
        blocks
        | "DecodeRecords"
        >> beam.ParDo(
            DecodeRecords(
                run.decoder, run.watermarks, run.limits, run.dedup.shards, run.present, run.refused
            )
        )
        | "DeduplicateTransactions" >> DeduplicateTransactions(run.layout, run.dedup)
        | "WriteRows" >> beam.ParDo(WriteRows(run.destination)).with_output_types(bytes)
    )
    _ = (read, written) | "CollectReports" >> CollectReports(run.run_id, run.destination)
