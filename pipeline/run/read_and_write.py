"""Step 3 of a run: the graph. Everything it writes lies in pending streams: nothing is visible."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np

from pipeline.graph import BoundedRun, build
from pipeline.options.config import RunConfig
from pipeline.run.plan import Plan
from pipeline.run.settings import RunSettings
from runners import beam_answers
from transforms.decode.decode_records import PartitionRules
from transforms.decode.decoder import Decoder
from transforms.decode.lateness import TimeLimits
from transforms.deduplicate.known_ids import ColdStart, StoredIds
from transforms.deduplicate.outcome import RowShape
from transforms.deduplicate.settings import DedupSettings
from transforms.destinations.contract.destination import Destination
from transforms.read.partition_reader import PartitionRange
from transforms.read.read_records import records_read
from transforms.write.write_rows import rows_written

RECORDS_OF_A_SHARD: Final = 25_000
"""Enough for an append of its own size: 2 MB of rows (transforms/destinations/appends.py)."""

RANGES_OF_A_TASK: Final = 16
"""A small range is read in 5 ms; a stage that spreads them takes Spark about 80 ms."""


def read_and_write(
    config: RunConfig,
    destination: Destination,
    plan: Plan,
    settings: RunSettings,
    stored: StoredIds | None = None,
) -> None:
    """Builds the graph for the ranges of the plan, runs it, and waits until it is done.

    stored: files with the ids that it begins with, for workers that are other processes. Raises
    what the runner raises.
    """
    shape = RowShape(plan.plan_time_us, config.schema.amount_column, config.schema.currency_column)
    ranges = [
        PartitionRange(part.topic, part.partition, part.read_from, part.to_offset, plan.cluster_id)
        for part in plan.partitions
        if part.to_offset > part.read_from
    ]
    run = BoundedRun(
        run_id=plan.run_id,
        ranges=ranges,
        consumer_config=dict(config.consumer_config),
        decoder=Decoder(
            config.schema,
            unknown_fields=config.unknown_fields,
            max_record_bytes=config.max_record_bytes,
        ),
        rules={
            (part.topic, part.partition): PartitionRules(
                part.start_watermark_us,
                plan.present((part.topic, part.partition)),
                np.array(config.reject_records.get((part.topic, part.partition), ()), np.int64),
            )
            for part in plan.partitions
        },
        limits=TimeLimits(plan.plan_time_us, config.max_future_skew_us),
        dedup=DedupSettings(
            job=plan.run_id,
            shards=shards_of_run(config, plan.records_at_most),
            retention_us=config.dedup_horizon_us + config.extra_retention_us,
            extra_retention_us=config.extra_retention_us,
            expires=False,
            shape=shape,
            cold_start=replace(cold_start(destination, plan, settings), stored=stored),
        ),
        layout=config.dedup_layout,
        destination=destination,
        spread=spreads_input(config, plan.records_at_most, len(ranges)),
    )
    beam_answers.remember()
    config.runner.run(
        lambda pipeline: build(pipeline, run),
        config.beam_options,
        lambda: (records_read(), rows_written()),
    )


def shards_of_run(config: RunConfig, records: int) -> int:
    """How many shards a run of so many records has, unless --shards says it.

    Each takes up to three write streams, whose number an hour is limited, and as many appends.
    """
    if config.shards_given:
        return config.shards
    return min(config.shards, max(1, records // RECORDS_OF_A_SHARD))


def spreads_input(config: RunConfig, records: int, ranges: int) -> bool:
    """Whether the ranges are shuffled before they are read, with a runner that needs it.

    A small run is read by one task: the shuffle would take longer than the reading.
    """
    is_small = records < 2 * RECORDS_OF_A_SHARD and ranges <= RANGES_OF_A_TASK
    return config.runner.spreads_input and not is_small


def cold_start(destination: Destination, planned: Plan, settings: RunSettings) -> ColdStart:
    """What the shards load: the ids that the lowest start watermark has not expired."""
    return ColdStart(
        destination,
        planned.run_id,
        planned.lowest_watermark_us,
        settings.extra_retention_us,
        seed=planned.seed,
    )
