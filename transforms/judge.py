"""DecodeRecords: bytes to columns, event time and lateness, then by shard. Everything here depends on the record and the plan alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import apache_beam as beam
from apache_beam.typehints import with_output_types

from transforms.batch import RawBlock, ShardBatch
from transforms.decode import Decoder
from transforms.lateness import TimeLimits, reject_untimely
from transforms.shard import split_by_shard


@with_output_types(tuple[int, ShardBatch])
class JudgeRecords(beam.DoFn):
    """RawBlock -> (shard, ShardBatch)."""

    def __init__(self, decoder: Decoder, watermarks: Mapping[tuple[str, int], int | None], limits: TimeLimits, shards: int) -> None:
        """watermarks: microseconds per (topic, partition); None: nothing is late there."""
        self._decoder = decoder
        self._watermarks = dict(watermarks)
        self._limits = limits
        self._shards = shards

    def process(self, block: RawBlock) -> Iterator[tuple[int, ShardBatch]]:
        decoded = self._decoder.decode(block)
        watermark = self._watermarks[(block.topic, block.partition)]
        yield from split_by_shard(reject_untimely(block, decoded, watermark, self._limits), self._shards)
