"""What a run would make of the newest records of a topic, judged by its own rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from pipeline.check.result import FAILED, NOTED, PASSED, CheckResult
from pipeline.kafka_admin import TopicState
from pipeline.options.config import RunConfig
from pipeline.run.look_ahead import Outlook
from pipeline.run.plan import PlannedPartition
from pipeline.run.rejected_rate import DETAILS, judge_topic
from transforms.decode.decode_records import PartitionRules, judge_block
from transforms.decode.decoder import Decoder
from transforms.decode.lateness import TimeLimits
from transforms.destinations.contract.destination import Destination
from transforms.destinations.contract.run_tail import newest_first
from transforms.model.rejected_counts import (
    RejectedCount,
    as_figures,
    count_rejected,
    merge_rejected,
)
from transforms.read.partition_reader import PartitionRange
from transforms.read.read_records import read_ranges

SAMPLE_RECORDS: Final = 100
"""Of each partition, the newest."""


def judge_newest(
    name: str, config: RunConfig, destination: Destination, ahead: Outlook, state: TopicState
) -> CheckResult:
    """What the run would make of the newest records of one topic.

    name: of the result. Raises GuaranteeError where the records cannot be read.
    """
    parts = [part for part in ahead.plan.partitions if part.topic == state.topic]
    payments, rejected = _judged(config, ahead, state, parts)
    refused = sum(count.records for count in rejected)
    if not payments + refused:
        return CheckResult(name, NOTED, "there is none yet")
    figure = (
        f"of {payments + refused:,} (up to {SAMPLE_RECORDS} of each partition): {payments:,}"
        f" payments or copies, {refused:,} rejected"
    )
    problem = judge_topic(
        state.topic,
        payments + refused,
        rejected,
        lambda: newest_first(ahead.runs, destination.runs),
        config.max_rejected_rate,
        destination.rows.rejected_by_reason,
    )
    waiting = any(part.to_offset > part.read_from for part in parts)
    status = PASSED
    if problem is not None:
        # A streaming job has no rate that stops it, so this is the only one to say it beforehand.
        status = FAILED if waiting and config.streaming is None else NOTED
        stops = "" if config.streaming is None else "a bounded run would stop: "
        # The causes are the rows of the proof.
        figure += f"; {stops}{' '.join([problem.what, *problem.fixes])}"
    return CheckResult(name, status, figure, [as_figures(count) for count in rejected[:DETAILS]])


def _judged(
    config: RunConfig, ahead: Outlook, state: TopicState, parts: Sequence[PlannedPartition]
) -> tuple[int, list[RejectedCount]]:
    """Payments, and rejected records by cause, among the newest records of a topic."""
    decoder = Decoder(
        config.schema,
        unknown_fields=config.unknown_fields,
        max_record_bytes=config.max_record_bytes,
    )
    limits = TimeLimits(ahead.plan.plan_time_us, config.max_future_skew_us)
    rules = {
        part.partition: PartitionRules(
            part.start_watermark_us,
            np.empty(0, np.int64),
            np.array(config.reject_records.get((part.topic, part.partition), ()), np.int64),
        )
        for part in parts
    }
    payments, rejected = 0, []
    for block in read_ranges(config.consumer_config, _newest(state)):
        judged = judge_block(block, decoder, rules[block.partition], limits)
        payments += judged.payments.num_rows
        rejected += count_rejected(judged.rejected)
    return payments, merge_rejected(rejected)


def _newest(state: TopicState) -> list[PartitionRange]:
    return [
        PartitionRange(state.topic, partition, max(low, high - SAMPLE_RECORDS), high)
        for partition, (low, high) in sorted(state.partitions.items())
        if high > low
    ]
