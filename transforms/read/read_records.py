"""ReadRecords: reads exact ranges of offsets, and reports what it read.

No splittable DoFn: a range is never split, since a batch runner cannot run the rest of one later
(Spark fails on it), and what is never split needs no restriction. So Beam fuses it with the steps
before and behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from transforms import metrics
from transforms.model.coordinates import HASH_MASK, coordinate_sum, int64s
from transforms.model.elements import RawBlock
from transforms.model.run_report import ReaderReport, encode_report
from transforms.read import reader_pool
from transforms.read.partition_reader import PartitionRange, PartitionReader

REPORTS = "reports"

_read_by_this_process = 0


def records_read() -> int:
    """Records that this process has read since its start, for a progress bar."""
    return _read_by_this_process


def read_ranges(
    consumer_config: Mapping[str, str], ranges: Iterable[PartitionRange]
) -> Iterator[RawBlock]:
    """The records of the ranges, outside of a pipeline. Raises what PartitionReader.read raises."""
    reader = PartitionReader(consumer_config)
    try:
        for wanted in ranges:
            yield from reader.read(wanted)
    finally:
        reader.close()


class ReadRecords(beam.PTransform):
    """PartitionRange -> (RawBlocks, encoded ReaderReports)."""

    def __init__(self, consumer_config: Mapping[str, str]) -> None:
        super().__init__()
        self._consumer_config = dict(consumer_config)

    def expand(self, ranges: beam.PCollection) -> tuple[beam.PCollection, beam.PCollection]:
        outputs = ranges | "ReadRange" >> beam.ParDo(ReadRange(self._consumer_config)).with_outputs(
            REPORTS, main="blocks"
        )
        blocks, reports = outputs.blocks, outputs[REPORTS]
        blocks.element_type, reports.element_type = RawBlock, bytes
        return blocks, reports


class ReadRange(beam.DoFn):
    """Reads one range to its end with a consumer of this process."""

    def __init__(self, consumer_config: Mapping[str, str]) -> None:
        self._consumer_config = dict(consumer_config)

    def teardown(self) -> None:
        reader_pool.READERS.close_unless_kept()

    def process(self, element: PartitionRange) -> Iterator[RawBlock | beam.pvalue.TaggedOutput]:
        global _read_by_this_process
        seen = RangeSeen(element)
        with reader_pool.READERS.lent(self._consumer_config, element, PartitionReader) as reader:
            bytes_before = reader.bytes_read
            for block in reader.read(element):
                seen.add(int64s(block.offsets))
                _read_by_this_process += len(block.offsets)
                yield block
            bytes_read = reader.bytes_read - bytes_before
        report = seen.report()
        metrics.count(metrics.RECORDS_READ, report.records)
        metrics.count(metrics.BYTES_READ, bytes_read)
        yield beam.pvalue.TaggedOutput(REPORTS, encode_report(report))


class RangeSeen:
    """Counts, hashes and gaps of a range while its blocks pass."""

    def __init__(self, wanted: PartitionRange) -> None:
        self._wanted = wanted
        self._next = wanted.from_offset
        self._records = 0
        self._hash = 0
        self._gaps: list[tuple[int, int]] = []

    def add(self, offsets: NDArray[np.int64]) -> None:
        """Offsets of one block: rising, and after those of the block before.

        Raises RuntimeError if they are not.
        """
        before = np.concatenate([[self._next - 1], offsets[:-1]])
        if (offsets <= before).any():
            raise RuntimeError(f"{self._wanted}: the consumer delivered offsets that do not rise")
        behind = np.flatnonzero(offsets - before > 1)
        self._gaps += [(int(before[index]) + 1, int(offsets[index]) - 1) for index in behind]
        self._next = int(offsets[-1]) + 1
        self._records += len(offsets)
        self._hash = (
            self._hash + coordinate_sum(self._wanted.topic, self._wanted.partition, offsets)
        ) & HASH_MASK

    def report(self) -> ReaderReport:
        """The report at the end of the range: offsets that did not arrive are gaps."""
        gaps = list(self._gaps)
        if self._next < self._wanted.to_offset:
            gaps.append((self._next, self._wanted.to_offset - 1))
        where = (
            self._wanted.topic,
            self._wanted.partition,
            self._wanted.from_offset,
            self._wanted.to_offset,
        )
        return ReaderReport(*where, self._records, self._hash, gaps)
