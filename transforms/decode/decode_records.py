"""DecodeRecords: bytes to columns, event time and lateness, then by shard. Everything here depends
on the record and the plan alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

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


@with_output_types(tuple[int, ShardBatch])
class DecodeRecords(beam.DoFn):
    """RawBlock -> (shard, ShardBatch)."""

    def __init__(
        self,
        decoder: Decoder,
        watermarks: Mapping[TopicPartition, int | None],
        limits: TimeLimits,
        shards: int,
        present: Mapping[TopicPartition, NDArray[np.int64]],
        refused: Mapping[TopicPartition, NDArray[np.int64]],
    ) -> None:
        """watermarks: microseconds per (topic, partition); None: nothing is late there.

        present: offsets that have a row already; their records are passed over, the table has their
        verdict. refused: offsets whose payments the destination refuses; they are rejected.
        """
        self._decoder = decoder
        self._present = dict(present)
        self._refused = dict(refused)
        self._watermarks = dict(watermarks)
        self._limits = limits
        self._shards = shards

    def process(self, block: RawBlock) -> Iterator[tuple[int, ShardBatch]]:
        decoded = self._decoder.decode(block)
        position = (block.topic, block.partition)
        judged = reject_untimely(block, decoded, self._watermarks[position], self._limits)
        if position in self._refused:
            judged = reject_refused(
                block, judged, self._refused[position], self._limits.max_record_bytes
            )
        if position in self._present:
            judged = _absent(judged, self._present[position])
        yield from split_by_shard(judged, self._shards)


def _absent(block: DecodedBlock, present: NDArray[np.int64]) -> DecodedBlock:
    payments, rejected = (
        ~np.isin(rows.column("kafka_offset").to_numpy(), present, kind="sort")
        for rows in (block.payments, block.rejected)
    )
    return DecodedBlock(
        block.payments.filter(pa.array(payments)),
        np.asarray(block.payload_index)[payments],
        block.rejected.filter(pa.array(rejected)),
    )
