"""From the configuration and where a job begins to the settings of every step of its graph."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.graph import StreamingJob
from pipeline.options.config import RunConfig
from pipeline.streaming.begin import Begun, StartPartition
from pipeline.streaming.flink_job import EndFlinkJob
from pipeline.streaming.found import FoundPartition, record_partitions
from transforms.decode.decoder import DECODER_VERSION, Decoder
from transforms.decode.judge_arrivals import JudgeArrivals
from transforms.deduplicate.known_ids import ColdStart
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.shard_ledger import Job
from transforms.model.coordinates import TopicPartition
from transforms.read.new_partitions import NewPartitions
from transforms.read.partition_loop import ReadSettings
from transforms.read.position import PartitionPosition
from transforms.stream.bundle import StreamSettings
from transforms.stream.polling import Polling
from transforms.stream.state import StateSettings
from transforms.stream.stop_on_error import StopOnError


def streaming_job(
    config: RunConfig, destination: Destination, begun: Begun, flink_master: str
) -> StreamingJob:
    """The settings of the graph of the job that has begun. flink_master: HOST:PORT."""
    return StreamingJob(
        begins=[_position(part, begun.cluster_id) for part in begun.partitions],
        new=NewPartitions(
            config.consumer_config,
            RecordNewPartitions(destination, begun.job),
            config.streaming.topic_pattern if config.streaming else None,
        ),
        read=ReadSettings(
            consumer_config=dict(config.consumer_config),
            job_id=begun.job.job_id,
            dedup_horizon_us=config.dedup_horizon_us,
            max_future_skew_us=config.max_future_skew_us,
            idle_timeout_us=config.idle_timeout_us,
            accept_data_loss=config.on_data_loss == "accept",
            first_missing=FirstMissing(destination),
        ),
        judge=JudgeArrivals(
            Decoder(
                config.schema,
                unknown_fields=config.unknown_fields,
                max_record_bytes=config.max_record_bytes,
            ),
            config.max_future_skew_us,
            begun.shards,
            {where: np.array(at, np.int64) for where, at in config.reject_records.items()},
        ),
        stream=_stream_settings(config, destination, begun),
        stop=StopOnError(destination, begun.job, EndFlinkJob(flink_master, begun.job.job_id)),
        destination=destination,
    )


def _stream_settings(config: RunConfig, destination: Destination, begun: Begun) -> StreamSettings:
    return StreamSettings(
        job=begun.job,
        state=StateSettings(
            shards=begun.shards,
            layout="sharded",
            dedup_horizon_us=config.dedup_horizon_us,
            extra_retention_us=config.extra_retention_us,
            max_future_skew_us=config.max_future_skew_us,
            decoder_version=DECODER_VERSION,
            dedup_key=config.schema.dedup_key,
            event_time_field=config.schema.event_time_field,
            epoch_units=config.schema.epoch_units(),
            max_record_bytes=config.max_record_bytes,
            cluster_id=begun.cluster_id,
        ),
        amount_column=config.schema.amount_column,
        currency_column=config.schema.currency_column,
        cold_start=ColdStart(
            destination,
            begun.job.job_id,
            begun.lowest_watermark_us,
            config.extra_retention_us,
            seed=begun.seed,
        ),
        polling=Polling(),
        now_us=clock_us,
    )


def clock_us() -> int:
    """This machine's clock, microseconds since 1970."""
    return time.time_ns() // 1000


def _position(part: StartPartition, cluster_id: str | None) -> PartitionPosition:
    mark = part.watermark_us
    return PartitionPosition(
        part.topic,
        part.partition,
        part.topic_id,
        cluster_id,
        part.position,
        mark if mark is None else mark // 1000 * 1000,
    )


@dataclass(frozen=True)
class FirstMissing:
    """Asks the tables, from a worker: transforms/read/partition_loop.py."""

    destination: Destination

    def __call__(self, begins: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        with self.destination as destination:
            return destination.rows.first_missing(begins)


@dataclass(frozen=True)
class RecordNewPartitions:
    """Writes down in the ledger, from a worker, where partitions that were found begin."""

    destination: Destination
    job: Job

    def __call__(self, found: Sequence[PartitionPosition]) -> list[PartitionPosition]:
        wanted = [
            FoundPartition(part.topic, part.partition, part.topic_id, part.offset) for part in found
        ]
        clusters = {(part.topic, part.partition): part.cluster_id for part in found}
        with self.destination as destination:
            begins = record_partitions(destination, self.job, wanted)
        return [
            PartitionPosition(
                part.topic,
                part.partition,
                part.topic_id,
                clusters[part.topic, part.partition],
                part.position,
                None,
                is_new=True,
            )
            for part in begins
        ]
