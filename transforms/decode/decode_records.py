"""DecodeRecords: the bytes of a block become rows, rejected where they must be, and go to shards.

Everything here depends on the record and the plan alone, so a retried bundle has the same result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam
import numpy as np
import pyarrow as pa
from apache_beam.typehints import with_output_types
from numpy.typing import NDArray

from transforms.decode.decoder import Decoder
from transforms.decode.lateness import TimeLimits, reject_refused, reject_untimely
from transforms.model.coordinates import TopicPartition
from transforms.model.elements import DecodedBlock, RawBlock, ShardBatch
from transforms.model.fingerprints import split_by_shard


@dataclass(frozen=True, eq=False)
class PartitionRules:
    """How the records of one partition are judged.

    watermark_us: the start watermark in microseconds; None: nothing is late. present: offsets that
    have a row already, from an expired run that is repaired; they are skipped, since the table has
    their verdict. refused: offsets whose payments the destination refuses; they are rejected. Both
    are empty in most runs.
    """

    watermark_us: int | None
    present: NDArray[np.int64]
    refused: NDArray[np.int64]


@with_output_types(tuple[int, ShardBatch])
class DecodeRecords(beam.DoFn):
    """RawBlock -> (shard, ShardBatch)."""

    def __init__(
        self,
        decoder: Decoder,
        rules: Mapping[TopicPartition, PartitionRules],
        limits: TimeLimits,
        shards: int,
    ) -> None:
        """rules: for every partition that is read."""
        self._decoder = decoder
        self._rules = dict(rules)
        self._limits = limits
        self._shards = shards

    def process(self, block: RawBlock) -> Iterator[tuple[int, ShardBatch]]:
        rules = self._rules[block.topic, block.partition]
        judged = judge_block(block, self._decoder, rules, self._limits)
        yield from split_by_shard(judged, self._shards)


def judge_block(
    block: RawBlock, decoder: Decoder, rules: PartitionRules, limits: TimeLimits
) -> DecodedBlock:
    """The payments of the block, and what is rejected of it, without `rules.present`."""
    kept_bytes = decoder.max_record_bytes
    decoded = decoder.decode(block)
    decoded = reject_untimely(block, decoded, rules.watermark_us, limits, kept_bytes)
    if rules.refused.size:
        decoded = reject_refused(block, decoded, rules.refused, kept_bytes)
    if rules.present.size:
        decoded = _absent(decoded, rules.present)
    return decoded


def _absent(block: DecodedBlock, present: NDArray[np.int64]) -> DecodedBlock:
    payments, rejected = (
        ~np.isin(rows.column("kafka_offset").to_numpy(), present, kind="sort")
        for rows in (block.payments, block.rejected)
    )
    return DecodedBlock(
        block.payments.filter(pa.array(payments)),
        block.payload_index[payments],
        block.rejected.filter(pa.array(rejected)),
    )
