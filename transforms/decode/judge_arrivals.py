"""Streaming: the bytes of one poll become rows, rejected where they must be, and go to the shards.

Shard and columns depend on the record alone. Whether a record is late or in the future depends on
the moment too: a replay may judge it differently, and then the verdict of the table stands
(transforms/stream/shard.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from transforms.decode.decode_records import PartitionRules, judge_block
from transforms.decode.decoder import Decoder
from transforms.decode.lateness import TimeLimits
from transforms.model.buckets import event_times_us
from transforms.model.coordinates import TopicPartition
from transforms.model.elements import Covered, DecodedBlock, JudgedArrivals, RawBlock
from transforms.model.fingerprints import split_for_stream

_NONE = np.empty(0, dtype=np.int64)


class Standing(Protocol):
    """What must be known of the partition: see transforms/read/position.py."""

    @property
    def watermark_us(self) -> int | None: ...

    @property
    def payloads_below(self) -> int | None: ...


@dataclass(frozen=True)
class JudgeArrivals:
    """Judges the blocks of all partitions of a job.

    max_future_skew_us: how far an event time may lie ahead of the clock. refused: offsets whose
    payments the destination refuses, by (topic, partition).
    """

    decoder: Decoder
    max_future_skew_us: int
    shards: int
    refused: Mapping[TopicPartition, NDArray[np.int64]]

    def __call__(
        self, block: RawBlock, covered: Covered, position: Standing, now_us: int
    ) -> JudgedArrivals:
        """covered: the offsets of the block, and those that hold no record. now_us: the clock."""
        refused = self.refused.get((block.topic, block.partition), _NONE)
        rules = PartitionRules(position.watermark_us, _NONE, refused)
        limits = TimeLimits(now_us, self.max_future_skew_us)
        judged = judge_block(block, self.decoder, rules, limits)
        times = event_times_us(judged.payments)
        if (below := _payloads_below(position)) is not None:
            payloads = _payloads(block, judged, times < below)
            covered = msgspec.structs.replace(covered, payloads=payloads)
        elements = list(split_for_stream(judged, covered, self.shards))
        return JudgedArrivals(elements, int(times.max()) if len(times) else None)


def _payloads_below(position: Standing) -> int | None:
    """Payments with an earlier event time may lie behind what their shard has expired."""
    below, watermark = position.payloads_below, position.watermark_us
    return None if below is not None and watermark is not None and watermark >= below else below


def _payloads(block: RawBlock, judged: DecodedBlock, wanted: NDArray[np.bool_]) -> dict[int, bytes]:
    """Offset -> bytes of the wanted payments."""
    rows = judged.payload_index[wanted].tolist()
    return {block.offsets[row]: block.values[row] or b"" for row in rows}
